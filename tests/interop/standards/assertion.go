// Verifies assertions as docs/assertion.md says: go run assertion.go GATE ASSERTION. Prints the subject.
// Snippet:
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

func subject(gate, assertion string) (string, error) {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return "", errors.New("no JWS")
	}
	var header struct{ Alg, Typ, Kid string }
	var claims struct {
		Iss, Aud, Sub string
		Exp           int64
	}
	for i, into := range []any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(text, into) != nil {
			return "", errors.New("no JSON")
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || header.Alg != "EdDSA" || header.Typ != "identity+jwt" {
		return "", errors.New("not an assertion")
	}
	answer, err := http.Get(gate + "/.well-known/jwks.json") // keep the answer for its max-age
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var set struct{ Keys []struct{ Kid, Kty, Crv, X string } }
	if err := json.NewDecoder(answer.Body).Decode(&set); err != nil {
		return "", err
	}
	for _, key := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(key.X)
		if err == nil && key.Kid == header.Kid && key.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize &&
			ed25519.Verify(x, []byte(parts[0]+"."+parts[1]), signature) &&
			claims.Iss == "http://gate.test" && claims.Aud == "app" && time.Now().Unix() < claims.Exp {
			return claims.Sub, nil
		}
	}
	return "", errors.New("not valid")
}

func main() {
	subject, err := subject(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(subject)
}
