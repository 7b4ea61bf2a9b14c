"""What a request for an answer may say: OpenAI's chat, as far as a fine-tuned model has it.

https://platform.openai.com/docs/api-reference/chat/create. What is not listed is refused, not ignored: a
caller who asks for tools shall not wonder why none is called.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Annotated, Any, Final, Literal

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from .errors import Refusal
from .seam import Message

MAX_IMAGE_PIXELS: Final = 64_000_000
# Pillow knows many more, some of which it hands to programs of the system: not with what strangers send.
IMAGE_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None


class StreamOptions(Strict):
    include_usage: bool = False


class ResponseFormat(Strict):
    type: Literal["text"]


class ChatRequest(Strict):
    """A request. Without `temperature` the likeliest token is taken each time, which is what was checked."""

    model: str = ""
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1
    response_format: ResponseFormat | None = None
    presence_penalty: Literal[0] = 0
    frequency_penalty: Literal[0] = 0
    user: str = ""
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @property
    def wanted_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(each for each in given if each)


def unfold(request: ChatRequest, *, takes_images: bool) -> tuple[list[Message], list[Image.Image]]:
    """The messages as the template takes them, and the picture they show, if one.

    Raises:
        Refusal: a picture that is not here, does not decode, or that the model cannot see.
    """
    messages: list[Message] = []
    images: list[Image.Image] = []
    for at, message in enumerate(request.messages):
        given = message.content
        content: list[dict[str, Any]] = []
        for part in [TextPart(type="text", text=given)] if isinstance(given, str) else given:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": part.text})
                continue
            where = f"messages.{at}.content"
            if not takes_images:
                raise Refusal("this model sees no pictures: send texts", code="no_images", param=where)
            if images:
                refusal = "one picture at most: this model was checked with no more"
                raise Refusal(refusal, code="too_many_images", param=where)
            images.append(picture_of(part.image_url.url, where))
            content.append({"type": "image", "text": ""})
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": content})
    return messages, images


def picture_of(url: str, where: str) -> Image.Image:
    """The picture that a data: URL holds. Others are not fetched: this server asks nobody for anything."""
    head, comma, content = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        message = "pictures come as data:image/...;base64,...: nothing is fetched from elsewhere"
        raise Refusal(message, code="invalid_image_url", param=where)
    try:
        encoded = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise Refusal(f"not base64: {error}", code="invalid_base64_image", param=where) from error
    return decode(encoded, where)


def decode(encoded: bytes, where: str) -> Image.Image:
    """A picture in RGB, its size looked at before its pixels. Raises Refusal."""
    try:
        with Image.open(io.BytesIO(encoded), formats=IMAGE_FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_IMAGE_PIXELS:
                message = f"{width} x {height} pixels, at most {MAX_IMAGE_PIXELS} are read: send it smaller"
                raise Refusal(message, status=413, code="image_too_large", param=where)
            return picture.convert("RGB")
    except UnidentifiedImageError as error:
        message = f"this is no picture in one of the formats {', '.join(IMAGE_FORMATS)}"
        raise Refusal(message, code="invalid_image", param=where) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        message = f"this is no picture that can be read: {error}"
        raise Refusal(message, code="invalid_image", param=where) from error
