"""One picture file out of a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.datastructures import UploadFile
    from starlette.requests import Request

FIELD = "file"
_ACCEPTED = f"one picture file in the field {FIELD}, as multipart/form-data"
_LONGEST_NAME = 80


class RefusedError(Exception):
    """A request is refused with an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@asynccontextmanager
async def received(request: "Request", most_bytes: int) -> AsyncIterator["UploadFile"]:
    """The file of a multipart request; a large one is on disk until the block ends.

    Raises:
        RefusedError: 413: the body is too large; 415: it is no multipart form; 422: the form is damaged, or does not
            hold exactly one file.
    """
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise RefusedError(415, f"content-type: got {kind[:100]!r}; accepted: {_ACCEPTED}")
    try:
        # A little more than is accepted, so that the error can say what was wrong.
        form = await request.form(max_files=2, max_fields=4, max_part_size=4096)
    except HTTPException as error:
        if error.status_code == 413:
            raise RefusedError(413, too_large(most_bytes)) from error
        raise RefusedError(422, f"{FIELD}: the form cannot be read ({error.detail}); accepted: {_ACCEPTED}") from error
    try:
        fields = [key for key, _ in form.multi_items()]
        file = form.get(FIELD)
        if len(fields) != 1 or not isinstance(file, UploadFile):
            raise RefusedError(422, f"{FIELD}: got {_content(fields)}; accepted: {_ACCEPTED}")
        yield file
    finally:
        await form.close()


async def read_upload(file: "UploadFile", most_bytes: int) -> bytes:
    """The content of a received file.

    Raises:
        RefusedError: 413: it has more than ``most_bytes``; 422: it is empty.
    """
    content = await file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise RefusedError(413, too_large(most_bytes))
    if not content:
        raise RefusedError(422, f"{file_name(file.filename)}: got an empty file; accepted: a whole picture file")
    return content


def too_large(most_bytes: int) -> str:
    """The error for a larger file.

    Example:
        >>> too_large(10_000_000)
        'file: got more than 10 MB; accepted: up to 10 MB'
    """
    size = f"{most_bytes / 1e6:g} MB"
    return f"{FIELD}: got more than {size}; accepted: up to {size}"


def file_name(sent: str | None) -> str:
    """The name of a file in messages: not a path, printable, not too long.

    Example:
        >>> file_name("C:\\\\photos\\\\cat.jpg"), file_name("../../etc/passwd"), file_name(None)
        ('cat.jpg', 'passwd', 'picture')
    """
    last = (sent or "").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:_LONGEST_NAME].strip() or "picture"


def _content(fields: list[str]) -> str:
    if not fields:
        return "nothing"
    if len(fields) > 1:
        return f"{len(fields)} parts"
    return "text" if fields[0] == FIELD else f"the field {fields[0][:40]!r}"
