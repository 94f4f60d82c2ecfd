"""The replies of the server, as JSON and in its OpenAPI document."""

import base64
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field

from ramify.answer.answerer import Answerer, Opinion
from ramify.answer.picture import Header, Pictures, conversion
from ramify.answer.runtime import Answers
from ramify.answer.samples import Sample, png_of
from ramify.version import __version__

_Share = Annotated[float, Field(ge=0, le=1)]
ClassName = Annotated[str, Field(serialization_alias="class", description="Name of a class.")]


class Problem(BaseModel):
    """Any error."""

    error: str = Field(description="One sentence: what was received, and what is accepted.")


class Health(BaseModel):
    """The server is up."""

    status: str = Field(description="`ok`", examples=["ok"])


class ExitCard(BaseModel):
    """One exit of the network."""

    exit: int = Field(description="Counted from 1.", ge=1)
    macs: int = Field(description="Multiply-accumulates of answering here, the exit heads before counted.", ge=0)
    share: _Share = Field(description="`macs` as a share of those of the last exit.")
    threshold: _Share | None = Field(
        description="The confidence at which a picture leaves here; null: none does, or at the last exit all do."
    )


class LimitsReply(BaseModel):
    """Limits on a picture."""

    upload_bytes: int = Field(description="Bytes of a picture file.")
    pixels: int = Field(description="Pixels of a picture, by its header.")


class SampleCard(BaseModel):
    """A picture to try."""

    url: str = Field(description="Its PNG file on this server.")
    label: ClassName


class Model(BaseModel):
    """The network and its exit policy."""

    name: str
    engine: str = Field(description="`PyTorch` or `ONNX Runtime`.")
    version: str = Field(description="Of ramify.")
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int] = Field(description="Channels, height, width that it reads.")
    exits: tuple[ExitCard, ...]
    policy: str = Field(description="One sentence: when a picture leaves.")
    limits: LimitsReply
    samples: tuple[SampleCard, ...]


class Chance(BaseModel):
    """A class and its probability at an exit."""

    label: ClassName
    probability: _Share


class ExitOpinion(BaseModel):
    """The answer of one exit, whether or not the picture reached it."""

    exit: int = Field(description="Counted from 1.", ge=1)
    label: ClassName
    confidence: _Share = Field(description="By the criterion of the exit policy.")
    threshold: _Share | None = Field(description="As in `/api/model`.")
    answered: bool = Field(description="Whether this exit gave the answer.")
    top: tuple[Chance, ...] = Field(description="Up to five classes, likeliest first.")


class Picture(BaseModel):
    """The picture that was received."""

    width: int
    height: int
    converted: bool = Field(description="Whether it had another size or mode than the network reads.")
    conversion: str | None = Field(description="How it was converted, in words.", examples=["64x48 RGB made 8x8 gray"])
    seen: str = Field(description="The picture as the network reads it: a data URI of a PNG.")


class Answer(BaseModel):
    """The answer, its exit, and the MACs that it saved."""

    label: ClassName
    confidence: _Share
    exit: int = Field(description="Where the picture left, counted from 1.", ge=1)
    exits: int = Field(description="How many exits there are.", ge=1)
    milliseconds: float = Field(description="Of the network alone, up to its answer.", ge=0)
    macs: int = Field(description="Multiply-accumulates up to the answer.", ge=0)
    macs_last: int = Field(description="Those of the last exit.", ge=0)
    saved: _Share = Field(description="`1 - macs / macs_last`")
    opinions: tuple[ExitOpinion, ...] = Field(description="Of every exit, shallowest first.")
    picture: Picture


def model_reply(
    network: Answerer, opinions: Sequence[Opinion], limits: LimitsReply, samples: Sequence[Sample]
) -> Model:
    """The description of ``network``, with thresholds from ``opinions`` of any picture."""
    macs = network.macs
    return Model(
        name=network.name,
        engine=network.engine,
        version=__version__,
        classes=network.classes,
        input_shape=network.input_shape,
        exits=tuple(
            ExitCard(exit=at + 1, macs=macs[at], share=macs[at] / macs[-1], threshold=opinions[at].threshold)
            for at in range(len(macs))
        ),
        policy=network.description,
        limits=limits,
        samples=tuple(SampleCard(url=f"api/samples/{at}", label=sample.label) for at, sample in enumerate(samples)),
    )


def answer_reply(
    network: Answerer, answers: Answers, opinions: Sequence[Opinion], header: Header, picture: Pictures
) -> Answer:
    """The answer to one ``picture``, float32 ``[C, H, W]``, from a file with ``header``."""
    left, macs, classes = int(answers.exits[0]), network.macs, network.classes
    converted = conversion(header, network.input_shape)
    return Answer(
        label=classes[int(answers.classes[0])],
        confidence=float(answers.confidence[0]),
        exit=left + 1,
        exits=len(macs),
        milliseconds=answers.milliseconds,
        macs=macs[left],
        macs_last=macs[-1],
        saved=1 - macs[left] / macs[-1],
        opinions=tuple(
            ExitOpinion(
                exit=opinion.exit + 1,
                label=classes[opinion.label],
                confidence=opinion.confidence,
                threshold=opinion.threshold,
                answered=opinion.exit == left,
                top=tuple(Chance(label=classes[label], probability=p) for label, p in opinion.top),
            )
            for opinion in opinions
        ),
        picture=Picture(
            width=header.width,
            height=header.height,
            converted=converted is not None,
            conversion=converted,
            seen=f"data:image/png;base64,{base64.b64encode(png_of(picture)).decode()}",
        ),
    )
