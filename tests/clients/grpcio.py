"""grpcio over TLS through the gate: messages and methods come by reflection of the upstream."""

import os
import queue
import threading

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

GATE = os.environ["CLIENTS_GATE"]
TOKEN = [("authorization", f"Bearer {os.environ['CLIENTS_TOKEN']}")]
with open(os.environ["CLIENTS_CA"], "rb") as file:
    CREDENTIALS = grpc.ssl_channel_credentials(file.read())


def refused(code, attempt):
    try:
        attempt()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        return error
    raise AssertionError(f"not refused with {code}")


def uses(host):
    print(host, "reflection")
    options = [("grpc.ssl_target_name_override", host), ("grpc.default_authority", host)]
    channel = grpc.secure_channel(GATE, CREDENTIALS, options=options)
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "test.Echo" in database.get_services(), database.get_services()
    service = DescriptorPool(database).FindServiceByName("test.Echo")
    text = message_factory.GetMessageClass(service.FindMethodByName("Unary").input_type)
    assert [method.name for method in service.methods] == ["Unary", "Count", "Chat"]

    def stub(kind, method):
        return getattr(channel, kind)(
            f"/test.Echo/{method}",
            request_serializer=text.SerializeToString,
            response_deserializer=text.FromString,
        )

    print(host, "unary")
    unary = stub("unary_unary", "Unary")
    answer, call = unary.with_call(text(value="hello"), metadata=[*TOKEN, ("x-own-bin", b"\x00\xff")], timeout=30)
    lines = answer.value.splitlines()
    assert lines[0] == "hello" and any(line.startswith("x-auth-subject: ") for line in lines), lines
    assert "x-own-bin: AP8" in [line.rstrip("=") for line in lines], lines
    first = dict(call.initial_metadata())
    assert first["x-first"] == "said" and first["x-first-bin"] == b"\x00\xff", first
    large = "ü" * 1_000_000
    assert unary(text(value=large), metadata=TOKEN, timeout=30).value.startswith(large)
    many = [unary.future(text(value=str(n)), metadata=TOKEN, timeout=30) for n in range(80)]
    assert [call.result().value.split("\n")[0] for call in many] == [str(n) for n in range(80)]

    print(host, "refusals")
    refused(grpc.StatusCode.UNAUTHENTICATED, lambda: unary(text(value="hello"), timeout=30))
    unknown = stub("unary_unary", "Unknown")
    refused(grpc.StatusCode.UNIMPLEMENTED, lambda: unknown(text(), metadata=TOKEN, timeout=30))

    print(host, "a stream of answers")
    count = stub("unary_stream", "Count")
    got = [answer.value for answer in count(text(value="times"), metadata=TOKEN, timeout=30)]
    assert got == [f"{n} times" for n in range(2000)], len(got)
    some = count(text(value="times"), metadata=TOKEN, timeout=30)
    assert next(some).value == "0 times"
    some.cancel()
    refused(grpc.StatusCode.CANCELLED, lambda: list(some))

    print(host, "streams both ways, message by message, and a status with metadata at their end")
    chat = stub("stream_stream", "Chat")
    says = queue.Queue()
    talk = chat(iter(says.get, None), metadata=TOKEN, timeout=30)
    for word in ("a", "b", "c"):
        says.put(text(value=word))
        assert next(talk).value == f"re: {word}"
    says.put(None)
    error = refused(grpc.StatusCode.DATA_LOSS, lambda: next(talk))
    assert error.details() == "100 % über", error.details()
    assert ("x-tail", "7") in list(talk.trailing_metadata()), talk.trailing_metadata()

    print(host, "a deadline")
    over = threading.Event()

    def silent():
        over.wait(60)
        return iter(())

    late = chat((message for wait in (silent,) for message in wait()), metadata=TOKEN, timeout=0.5)
    refused(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: next(late))
    over.set()
    assert unary(text(value="after"), metadata=TOKEN, timeout=30).value.startswith("after\n")
    channel.close()


for host in os.environ["CLIENTS_HOSTS"].split():
    uses(host)
print("all is well")
