"""``ramify-runtime FOLDER PICTURE...``: a line of JSON for each picture."""

import argparse
import json
import sys
from pathlib import Path

from ramify_runtime import RamifyError, Runtime, __version__, find_pictures, read_file, read_picture


def main() -> None:
    """Answer pictures; those that cannot be read are reported, the others are answered, and the exit code is 2."""
    parser = argparse.ArgumentParser("ramify-runtime", description="Answer pictures from an exported network.")
    parser.add_argument("--version", action="version", version=f"ramify-runtime {__version__}")
    parser.add_argument("folder", help="of ramify export --to onnx")
    parser.add_argument("pictures", nargs="+", type=Path, help="picture files, or folders of them")
    parser.add_argument("--threads", type=int, help="processor threads [default: as many as there are]")
    parser.add_argument("--threshold", type=float, help="in place of the thresholds of the folder, in [0, 1]")
    given = parser.parse_args()
    code = 0
    try:
        runtime = Runtime(given.folder, given.threads, given.threshold)
        pictures = find_pictures(given.pictures)
    except RamifyError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    for path in pictures:
        try:
            picture = read_picture(read_file(path), str(path), runtime.input_shape, runtime.reading)
            found = runtime.predict(picture)
        except RamifyError as error:
            sys.stderr.write(f"error: {error}\n")
            code = error.exit_code
            continue
        label, confidence = int(found.classes[0]), float(found.confidence[0])
        answer = {"name": runtime.classes[label], "label": label, "confidence": confidence}
        rest = {"exit": int(found.exits[0]) + 1, "milliseconds": found.milliseconds}
        sys.stdout.write(json.dumps({"picture": str(path), **answer, **rest}) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
