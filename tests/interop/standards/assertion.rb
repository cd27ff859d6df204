# Verifies assertions as docs/assertion.md says: ruby assertion.rb GATE ASSERTION. Prints the subject.
# Snippet:
require "json"
require "jwt"
require "net/http"

gate, assertion = ARGV
keys = JSON.parse(Net::HTTP.get(URI("#{gate}/.well-known/jwks.json")), symbolize_names: true)
claims, header = JWT.decode(assertion, nil, true, algorithms: ["ES256"], jwks: keys, iss: "http://gate.test",
                            verify_iss: true, aud: "app", verify_aud: true, required_claims: %w[exp iat sub])
raise JWT::DecodeError, "not an assertion" unless header["typ"] == "identity+jwt"
puts claims["sub"]
