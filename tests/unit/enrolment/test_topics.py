"""A client's topics are its own, and only they."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firstlight.enrolment.topics import check_publish, check_subscribe, credential_name, topic_of
from firstlight.errors import AccessError, MalformedError

ME, OTHER = credential_name(bytes(16)), credential_name(bytes([1] * 16))


def refused(check, topic: str) -> str:
    with pytest.raises(AccessError) as caught:
        check(ME, topic)
    return caught.value.code


@pytest.mark.parametrize("leaf", ["data", "a/b/c", "hello.1"])
def test_own_topics_pass(leaf):
    check_publish(ME, topic_of(ME, leaf))
    check_subscribe(ME, topic_of(ME, leaf))


@pytest.mark.parametrize("leaf", ["#", "+", "+/x", "x/#", "+/+/#"])
def test_own_filters_pass_and_are_no_topic_names(leaf):
    check_subscribe(ME, f"devices/{ME}/{leaf}")
    assert refused(check_publish, f"devices/{ME}/{leaf}") == "topic-malformed"


@pytest.mark.parametrize(
    "topic",
    [f"devices/{OTHER}/data", "devices", f"devices/{ME}", f"devices/{ME}x/data", f"DEVICES/{ME}/data", "$SYS/broker"],
)
def test_other_topics_are_refused(topic):
    assert refused(check_publish, topic) in {"topic-not-yours", "topic-malformed"}
    assert refused(check_subscribe, topic) in {"topic-not-yours", "topic-malformed"}


@pytest.mark.parametrize("pattern", ["devices/+/data", "+/#", f"devices/{OTHER}/#"])
def test_wildcards_reach_nobody_else(pattern):
    assert refused(check_subscribe, pattern) == "topic-not-yours"


@pytest.mark.parametrize("leaf", ["", "a//b", "a#", "#/a", "a+", "a b", "a\0", "é", "x" * 300])
def test_malformed_topics_are_refused(leaf):
    assert refused(check_subscribe, f"devices/{ME}/{leaf}") == "topic-malformed"
    with pytest.raises(MalformedError) as caught:
        topic_of(ME, leaf)
    assert caught.value.code == "topic-malformed"


def test_a_name_is_sixteen_bytes():
    with pytest.raises(MalformedError) as caught:
        credential_name(bytes(15))
    assert caught.value.code == "bad-credential-name"


@settings(max_examples=50)
@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_passes_starts_with_the_own_level(name, topic):
    for check in (check_publish, check_subscribe):
        try:
            check(name, topic)
        except AccessError:
            continue
        assert topic.startswith(f"devices/{name}/")
