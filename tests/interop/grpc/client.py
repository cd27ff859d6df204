"""grpcio against the gate: every message type comes by server reflection, none from a file."""

import json
import os
import urllib.error
import urllib.parse
import urllib.request

import grpc
from google.protobuf import json_format, message_factory, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

GATE = os.environ["INTEROP_GATE"]
CUTTING = os.environ["INTEROP_CUTTING"]
EMAIL = os.environ["INTEROP_EMAIL"]
PASSWORD = os.environ["INTEROP_PASSWORD"]
PROFILE = json.loads(os.environ["INTEROP_PROFILE"])
SERVICE = "user_api.v1.UserApiService"

channel = grpc.insecure_channel(GATE)
database = ProtoReflectionDescriptorDatabase(channel)
assert SERVICE in database.get_services(), database.get_services()
service = DescriptorPool(database).FindServiceByName(SERVICE)


def call(method, fields, token=None, on=channel):
    description = service.FindMethodByName(method)
    request = message_factory.GetMessageClass(description.input_type)(**fields)
    stub = on.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(description.output_type).FromString,
    )
    return stub(request, metadata=bearer(token), timeout=30)


def bearer(token):
    return [("authorization", f"Bearer {token}")] if token else None


def upstream():
    return channel.unary_unary(
        "/test.Echo/Unary",
        request_serializer=wrappers_pb2.StringValue.SerializeToString,
        response_deserializer=wrappers_pb2.StringValue.FromString,
    )


def chat(token):
    return channel.stream_stream(
        "/test.Echo/Chat",
        request_serializer=wrappers_pb2.StringValue.SerializeToString,
        response_deserializer=wrappers_pb2.StringValue.FromString,
    )(iter([wrappers_pb2.StringValue(value=text) for text in "abc"]), metadata=bearer(token), timeout=30)


def refused(code, attempt):
    try:
        attempt()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        return error
    raise AssertionError(f"not refused with {code}")


def same(a, b):
    # Their texts are secrets: a failure must not print them.
    return a.token == b.token and a.refresh_token == b.refresh_token


print("health")
health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
assert health.status == health_pb2.HealthCheckResponse.SERVING

print("login")
unauthenticated = grpc.StatusCode.UNAUTHENTICATED
refused(unauthenticated, lambda: call("AuthnWithPassword", {"email": EMAIL, "password": PASSWORD + "x"}))
refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: call("AuthnWithPassword", {"email": EMAIL}))
answer = call("AuthnWithPassword", {"email": EMAIL, "password": PASSWORD})
user = json_format.MessageToDict(answer.user, preserving_proto_field_name=True)
assert user == PROFILE, user
first = answer.auth_token
assert first.token_type == "Bearer" and 0 < first.expires_in <= 600, first.expires_in

print("protected calls")
assert call("GetMe", {}, first.token).user == answer.user
refused(unauthenticated, lambda: call("GetMe", {}))
refused(unauthenticated, lambda: call("GetMe", {}, first.token[:-2]))
hello = wrappers_pb2.StringValue(value="hello")
told = upstream()(hello, metadata=bearer(first.token), timeout=30).value.splitlines()
assert told[0] == "hello" and f"x-auth-subject: {PROFILE['uuid']}" in told and "x-auth-client: knox" in told, told
refused(unauthenticated, lambda: upstream()(hello, timeout=30))
talk = chat(first.token)
assert [next(talk).value for _ in range(3)] == ["re: a", "re: b", "re: c"]
refused(grpc.StatusCode.DATA_LOSS, lambda: next(talk))
assert ("x-tail", "7") in list(talk.trailing_metadata()), talk.trailing_metadata()

print("a refresh among ten other requests")
others = [upstream().future(hello, metadata=bearer(first.token), timeout=30) for _ in range(10)]
answer = call("RefreshAccessToken", {"refresh_token": first.refresh_token})
second = answer.auth_token
assert all(other.result().value.startswith("hello") for other in others)
assert not same(first, second)
assert json_format.MessageToDict(answer.user, preserving_proto_field_name=True) == PROFILE
call("GetMe", {}, second.token)

print("a reply that is lost")
with grpc.insecure_channel(CUTTING) as cutting:
    lost = {"refresh_token": second.refresh_token}
    refused(grpc.StatusCode.UNAVAILABLE, lambda: call("RefreshAccessToken", lost, on=cutting))
third = call("RefreshAccessToken", lost).auth_token
assert same(third, call("RefreshAccessToken", lost).auth_token)
call("GetMe", {}, third.token)

print("a refresh token that comes back late")
refused(unauthenticated, lambda: call("RefreshAccessToken", {"refresh_token": first.refresh_token}))
refused(unauthenticated, lambda: call("RefreshAccessToken", {"refresh_token": third.refresh_token}))
refused(unauthenticated, lambda: call("GetMe", {}, third.token))
refused(unauthenticated, lambda: upstream()(hello, metadata=bearer(third.token), timeout=30))

print("revocation")
tokens = call("AuthnWithPassword", {"email": EMAIL, "password": PASSWORD}).auth_token
call("GetMe", {}, tokens.token)
form = urllib.parse.urlencode({"client_id": "knox", "token": tokens.refresh_token}).encode()
assert urllib.request.urlopen(f"http://{GATE}/connect/revocation", form, timeout=30).status == 200
refused(unauthenticated, lambda: call("GetMe", {}, tokens.token))
refused(unauthenticated, lambda: upstream()(hello, metadata=bearer(tokens.token), timeout=30))
refused(unauthenticated, lambda: call("RefreshAccessToken", {"refresh_token": tokens.refresh_token}))

print("all is well")
