"""What a store says becomes an error that a person may read: its class, its words, no secret."""

import pytest
from obstore import exceptions

from scalarizr.errors import NotFound, OutsideFailure, PermissionRefused, Refused, TimedOut
from scalarizr.objectstore.words import failure

DENIED = """The operation lacked the necessary privileges: PUT https://x/backups/x?sig=planted-secret in 1ms
 - Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><Message>The key
planted-key does not sign.</Message><StringToSign>planted-secret</StringToSign></Error>

Debug source: PermissionDenied { token: planted-secret }"""


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (
            exceptions.PermissionDeniedError(DENIED),
            PermissionRefused,
            "SignatureDoesNotMatch, The key ****** does not sign",
        ),
        (exceptions.GenericError("Generic Azure error: 503 at https://x/a?sig=planted-secret"), OutsideFailure, "503"),
        (
            exceptions.GenericError("Error performing PUT https://x/y?sig=planted-secret: operation timed out"),
            TimedOut,
            "",
        ),
        (FileNotFoundError("… 404 Not Found: <Code>NoSuchBucket</Code>"), NotFound, "does not exist"),
        (FileNotFoundError("Object at location a/b not found: 404 NoSuchKey"), NotFound, "There is no a/b"),
    ],
)
def test_the_stores_words_are_kept_and_its_secrets_are_not(
    raised: Exception, kind: type[Exception], words: str
) -> None:
    error = failure(raised, "s3://bucket", "a/b", ["planted-key"], left="Nothing was kept there")
    assert type(error) is kind and words in str(error) and "s3://bucket" in str(error)
    assert "planted" not in str(error) and "Debug source" not in str(error)


def test_what_is_an_error_of_ours_or_no_word_of_a_store_stays_what_it_is() -> None:
    for raised in (Refused("no"), RuntimeError("a bug")):
        assert failure(raised, "s3://b", "a", [], left="Nothing") is raised
