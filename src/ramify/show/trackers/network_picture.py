"""A network in one epoch as a small picture: for each stage how well its exit does and how dense it is."""

import io

from PIL import Image, ImageDraw, ImageFont

from ramify.run.events import EpochDone
from ramify.show.words import percent

WIDTH, ROW, TOP, BOTTOM = 460, 32, 70, 12
FIRST, SECOND, BAR = 62, 268, 110
"""Where the two columns of bars begin, and how long a full bar is. TensorBoard shows the picture at half its size."""

PAPER, INK, DIM, TRACK = "#ffffff", "#2b2f36", "#7c828c", "#eceef1"
BLUE, GREEN = "#1f5fa8", "#3c8f5a"


def network_picture(event: EpochDone, planned: int) -> tuple[bytes, int, int]:
    """PNG, width and height of the picture of a network that has grown to some of its ``planned`` stages.

    A row is a stage, the first on top: a bar for the accuracy of its exit (on validation pictures where there are any)
    and one for its density. Stages that are still to grow are empty.
    """
    height = TOP + ROW * planned + BOTTOM
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(picture)
    font, bold = ImageFont.load_default(size=18), ImageFont.load_default(size=20)
    held_out = event.exits[0].valid is not None
    draw.text((8, 8), f"epoch {event.epoch} of {event.epochs}", INK, bold)
    draw.text((FIRST, TOP - 30), f"{'validation' if held_out else 'training'} accuracy", DIM, font)
    draw.text((SECOND, TOP - 30), "weights kept", DIM, font)
    for stage in range(planned):
        y = TOP + ROW * stage
        grown = stage < event.stages
        draw.text((8, y + 3), f"exit {stage + 1}", INK if grown else DIM, font)
        if not grown:
            draw.text((FIRST, y + 3), "not grown yet", DIM, font)
            continue
        score = event.exits[stage].valid or event.exits[stage].train
        for x, share, color in ((FIRST, score.top1, BLUE), (SECOND, event.density[stage], GREEN)):
            draw.rounded_rectangle((x, y + 4, x + BAR, y + 24), 4, TRACK)
            if share > 0:
                draw.rounded_rectangle((x, y + 4, x + max(8, round(BAR * share)), y + 24), 4, color)
            draw.text((x + BAR + 8, y + 3), percent(share), INK, font)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue(), WIDTH, height
