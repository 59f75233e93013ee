"""The server: it starts, stops and resets; it refuses on request; tests can step in between."""

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import pytest

from sandbox.calls import Call
from sandbox.server import Server
from tests.sandbox.aws import REGION, Aws, World, refused


def bucket(aws: Aws, name: str = "bucket") -> str:
    aws("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return name


def queue(aws: Aws, name: str = "queue", **attributes: str) -> str:
    url: str = aws("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url


def test_it_leaves_no_thread_and_frees_its_port() -> None:
    before = set(threading.enumerate())
    with Server() as server:
        aws = Aws(server)
        bucket(aws, "left-behind")
        port = server.port
        server.reset()
    assert set(threading.enumerate()) == before
    with Server(port) as again:
        assert again.endpoint == f"http://127.0.0.1:{port}"
        Aws(again)("s3").list_buckets()


def test_it_stops_while_a_client_waits_for_messages() -> None:
    with Server() as server:
        aws = Aws(server)
        url = queue(aws)
        waiting = threading.Event()
        server.before.append(lambda call: waiting.set() if "Receive" in call.action else None)
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(aws("sqs").receive_message, QueueUrl=url, WaitTimeSeconds=20)
            assert waiting.wait(5)
            started = time.monotonic()
            server.stop()
            assert time.monotonic() - started < 2
            assert "Messages" not in answer.result(timeout=5)


def test_a_connection_is_kept_open(world: World) -> None:
    sockets: set[Any] = set()
    sqs = world.admin("sqs")
    queue(world.admin)
    pool = sqs._endpoint.http_session._manager.connection_from_url(world.server.endpoint)
    for _ in range(5):
        sqs.list_queues()
        sockets.add(pool.num_connections)
    assert sockets == {1}


def test_reset_leaves_nothing(world: World) -> None:
    server = world.server
    bucket(world.admin)
    server.before.append(lambda call: None)
    with server.refuse("s3:ListBuckets", "SlowDown"):
        server.reset()
        assert world.admin("s3").list_buckets()["Buckets"] == []
    assert server.before == []
    assert server.calls.count() == {"s3:ListBuckets": 1}


@pytest.mark.parametrize("key", ["plain", "a/b c/ü+&%.txt", "slash/", "//double"])
def test_object_keys_and_bodies_pass_unharmed(world: World, key: str) -> None:
    s3 = world.admin("s3")
    name = bucket(world.admin)
    s3.put_object(Bucket=name, Key=key, Body=b"\x00\xffbody", Metadata={"under_score": "1"})
    got = s3.get_object(Bucket=name, Key=key)
    assert got["Body"].read() == b"\x00\xffbody"
    assert got["Metadata"] == {"under_score": "1"}
    head = s3.head_object(Bucket=name, Key=key)
    assert head["ContentLength"] == 6
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=name)["Contents"]] == [key]


def test_a_chunked_body_is_read(world: World) -> None:
    name = bucket(world.admin)
    url = world.admin("s3").generate_presigned_url(
        "put_object", Params={"Bucket": name, "Key": "streamed"}
    )
    body = iter([b"first,", b"second"])
    plain = {"Content-Type": "text/plain"}
    request = Request(url, data=body, headers=plain, method="PUT")  # noqa: S310
    with urlopen(request) as answer:  # noqa: S310
        assert answer.status == 200
    got = world.admin("s3").get_object(Bucket=name, Key="streamed")
    assert got["Body"].read() == b"first,second"


def test_a_client_may_hang_up(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    url = queue(world.admin)
    waiting, ended = threading.Event(), threading.Event()
    world.server.before.append(lambda call: waiting.set() if "Receive" in call.action else None)
    world.server.after.append(lambda call: ended.set() if "Receive" in call.action else None)
    body = json.dumps({"QueueUrl": url, "WaitTimeSeconds": 1}).encode()
    signed = "AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/sqs/aws4_request, x"
    head = (
        "POST / HTTP/1.1\r\nHost: sqs\r\nX-Amz-Target: AmazonSQS.ReceiveMessage\r\n"
        f"Content-Type: application/x-amz-json-1.0\r\nAuthorization: {signed}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", world.server.port)) as connection:
        connection.sendall(head.encode() + body)
        assert waiting.wait(5)
        reset_on_close = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
    assert ended.wait(5)
    world.admin("sqs").list_queues()
    assert capfd.readouterr().err == ""


# --- refusals ---


@pytest.mark.parametrize(
    ("asked", "params", "action", "code", "status"),
    [
        ("secretsmanager.list_secrets", {}, "secretsmanager:*", "InternalServiceError", 500),
        ("secretsmanager.list_secrets", {}, "secretsmanager:*", "AccessDeniedException", 400),
        ("acm.list_certificates", {}, "acm:ListCertificates", "ThrottlingException", 400),
        ("sqs.list_queues", {}, "sqs:ListQueues", "AccessDenied", 403),
        ("elbv2.describe_rules", {}, "elasticloadbalancing:*", "Throttling", 400),
        ("sts.get_caller_identity", {}, "sts:GetCallerIdentity", "AccessDenied", 403),
        ("cloudfront.list_distributions", {}, "cloudfront:*", "AccessDenied", 403),
        ("cloudfront.get_distribution", {"Id": "E1"}, "cloudfront:*", "NoSuchDistribution", 404),
        ("route53.list_hosted_zones", {}, "route53:*", "PriorRequestNotComplete", 400),
        ("route53.list_hosted_zones", {}, "route53:List*", "ThrottlingException", 400),
        ("s3.list_buckets", {}, "s3:ListBuckets", "SlowDown", 503),
        ("s3.get_object", {"Bucket": "no", "Key": "k"}, "s3:GetObject", "NoSuchKey", 404),
        ("resourcegroupstaggingapi.get_resources", {}, "tag:*", "ThrottledException", 400),
        ("lambda.list_functions", {}, "lambda:*", "TooManyRequestsException", 429),
    ],
)
def test_a_refusal_is_what_the_service_would_say(
    world: World,
    asked: str,
    params: dict[str, str],
    action: str,
    code: str,
    status: int,
) -> None:
    service, operation = asked.split(".")
    call = getattr(world.admin(service), operation)
    with (
        world.server.refuse(action, code, "because of the test") as hits,
        refused(code, "because of the test", status),
    ):
        call(**params)
    assert [hit.service for hit in hits] == [action.partition(":")[0]]
    assert world.server.calls.all()[-1].status == status


def test_a_head_request_is_refused_by_status_alone(world: World) -> None:
    with world.server.refuse("s3:HeadObject", "AccessDenied"), refused("403", status=403):
        world.admin("s3").head_object(Bucket="no", Key="k")
    world.admin("s3").list_buckets()


def test_a_refusal_can_be_counted_and_chosen(world: World) -> None:
    s3 = world.admin("s3")
    name = bucket(world.admin)

    def put(key: str) -> None:
        s3.put_object(Bucket=name, Key=key, Body=b"")

    def only_a(call: Call) -> bool:
        return call.params is not None and call.params["Key"] == "a"

    with world.server.refuse("s3:PutObject", "SlowDown", times=2, when=only_a) as hits:
        put("b")
        for _ in range(2):
            with refused("SlowDown"):
                put("a")
        put("a")
    assert len(hits) == 2
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=name)["Contents"]] == ["a", "b"]


def test_a_refused_call_changes_nothing(world: World) -> None:
    secrets = world.admin("secretsmanager")
    with (
        world.server.refuse("secretsmanager:CreateSecret", "LimitExceededException"),
        refused("LimitExceededException"),
    ):
        secrets.create_secret(Name="s", SecretString="v")
    assert secrets.list_secrets()["SecretList"] == []
    assert world.server.calls.writes() == []


# --- stepping in between ---


def test_the_world_can_change_between_a_read_and_a_write(world: World) -> None:
    s3 = world.admin("s3")
    name = bucket(world.admin)
    etag = s3.put_object(Bucket=name, Key="k", Body=b"1")["ETag"]
    other = Aws(world.server)("s3")

    def first(call: Call) -> None:
        if call.action == "s3:PutObject":
            world.server.before.remove(first)
            other.put_object(Bucket=name, Key="k", Body=b"2")

    world.server.before.append(first)
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=name, Key="k", Body=b"3", IfMatch=etag)
    assert s3.get_object(Bucket=name, Key="k")["Body"].read() == b"2"


def test_after_sees_how_a_call_ended(world: World) -> None:
    seen: list[tuple[str, int | None]] = []
    world.server.after.append(lambda call: seen.append((call.action, call.status)))
    with refused("NoSuchBucket"):
        world.admin("s3").list_objects_v2(Bucket="nothing")
    assert seen == [("s3:ListObjectsV2", 404)]


# --- what moto alone would get wrong ---


def test_what_moto_lacks_is_said_so(world: World) -> None:
    with refused("NotImplemented", "moto does not implement acm:RevokeCertificate", 501):
        world.admin("acm").revoke_certificate(
            CertificateArn="arn:aws:acm:eu-central-1:123456789012:certificate/x",
            RevocationReason="SUPERSEDED",
        )


def test_of_two_conditional_writers_one_wins(world: World) -> None:
    name = bucket(world.admin)

    s3 = world.admin("s3")

    def write(number: int) -> int:
        answer = s3.put_object(Bucket=name, Key="once", Body=str(number).encode(), IfNoneMatch="*")
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])

    clients = 6
    with ThreadPoolExecutor(clients) as pool:
        ended = [pool.submit(write, number) for number in range(clients)]
    assert sum(1 for each in ended if each.exception() is None) == 1


def test_a_waiting_receiver_gets_a_message_when_it_comes(world: World) -> None:
    url = queue(world.admin, ReceiveMessageWaitTimeSeconds="20")
    waiting = threading.Event()
    world.server.before.append(lambda call: waiting.set() if "Receive" in call.action else None)
    receiver, sender = Aws(world.server)("sqs"), world.admin("sqs")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(receiver.receive_message, QueueUrl=url)
        assert waiting.wait(5)
        sender.send_message(QueueUrl=url, MessageBody=json.dumps({"at": "last"}))
        (message,) = answer.result(timeout=5)["Messages"]
    assert message["Body"] == '{"at": "last"}'
