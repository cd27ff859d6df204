// Verifies assertions as docs/assertion.md says: java -cp JACKSON Assertion.java GATE ASSERTION. Prints the subject.
// Snippet:
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.math.BigInteger;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.Signature;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.time.Instant;
import java.util.Base64;

class Assertion {
    static final ObjectMapper JSON = new ObjectMapper();

    static BigInteger number(JsonNode key, String name) {
        return new BigInteger(1, Base64.getUrlDecoder().decode(key.path(name).asText()));
    }

    static boolean verifies(JsonNode key, String message, byte[] signature) throws GeneralSecurityException {
        var curve = AlgorithmParameters.getInstance("EC");
        curve.init(new ECGenParameterSpec("secp256r1"));
        var point = new ECPoint(number(key, "x"), number(key, "y"));
        var spec = new ECPublicKeySpec(point, curve.getParameterSpec(ECParameterSpec.class));
        var verifier = Signature.getInstance("SHA256withECDSAinP1363Format");
        verifier.initVerify(KeyFactory.getInstance("EC").generatePublic(spec));
        verifier.update(message.getBytes());
        return verifier.verify(signature);
    }

    static String subject(String gate, String assertion) throws Exception {
        var parts = assertion.split("\\.", -1);
        if (parts.length != 3) throw new GeneralSecurityException("no JWS");
        var header = JSON.readTree(Base64.getUrlDecoder().decode(parts[0]));
        var claims = JSON.readTree(Base64.getUrlDecoder().decode(parts[1]));
        if (!header.path("alg").asText().equals("ES256") || !header.path("typ").asText().equals("identity+jwt"))
            throw new GeneralSecurityException("not an assertion");
        var keys = URI.create(gate + "/.well-known/jwks.json"); // keep the answer for its max-age
        var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(keys).build(), BodyHandlers.ofString());
        for (var key : JSON.readTree(answer.body()).path("keys")) {
            if (key.path("kid").equals(header.path("kid")) && key.path("crv").asText().equals("P-256")
                    && verifies(key, parts[0] + "." + parts[1], Base64.getUrlDecoder().decode(parts[2]))
                    && claims.path("iss").asText().equals("http://gate.test")
                    && claims.path("aud").asText().equals("app")
                    && Instant.now().getEpochSecond() < claims.path("exp").asLong())
                return claims.path("sub").asText();
        }
        throw new GeneralSecurityException("not valid");
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println(subject(arguments[0], arguments[1]));
    }
}
