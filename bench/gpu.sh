#!/bin/sh
# One GPU for a few minutes: the archive goes there in parts, and what fits into the minutes comes back as JSON.
#
#   here:   bench/gpu.sh split ARCHIVE FOLDER       FOLDER/part-aa, part-ab, ... of at most 55 MiB, and FOLDER/sum
#   there:  bench/gpu.sh take FOLDER                keeps the parts that have come; once or more, a few parts at a time
#   there:  bench/gpu.sh run --minutes 9 --out OUT [PRESET[:PFLOP] ...]     see bench/gpu.py
#
# KEEP is where the parts lie there, PART the size of one (55m), PYTHON the interpreter.
set -eu
keep=${KEEP:-/tmp/ramify-gpu}
python=${PYTHON:-python3}

joined() { # joins the parts if all are there, and prints the archive
    name=$(sed 's/^[0-9a-f]*  //' "$keep/sum")
    if [ ! -f "$keep/$name" ]; then
        cat "$keep"/part-* > "$keep/$name.new"
        mv "$keep/$name.new" "$keep/$name"
    fi
    if ! (cd "$keep" && sha256sum --quiet --check sum >&2); then
        rm -f "$keep/$name"
        echo "error: $keep: got $(ls "$keep" | grep -c '^part-') parts, which are not all of $name" >&2
        exit 2
    fi
    echo "$keep/$name"
}

case ${1:-} in
split)
    if [ $# -ne 3 ] || [ ! -f "$2" ]; then
        echo "error: split: got '$*'; accepted: split ARCHIVE FOLDER" >&2
        exit 2
    fi
    mkdir -p "$3"
    rm -f "$3"/part-* "$3/sum"
    split -b "${PART:-55m}" "$2" "$3/part-"
    (cd "$(dirname "$2")" && sha256sum "$(basename "$2")") > "$3/sum"
    ls -l "$3"
    ;;
take)
    if [ $# -ne 2 ] || [ ! -f "$2/sum" ]; then
        echo "error: take: got '$*'; accepted: take FOLDER, with the file sum in it" >&2
        exit 2
    fi
    mkdir -p "$keep"
    cp "$2/sum" "$keep/"
    for part in "$2"/part-*; do
        if [ -f "$part" ]; then cp "$part" "$keep/"; fi
    done
    ls -l "$keep"
    ;;
run)
    shift
    if [ ! -f "$keep/sum" ]; then
        echo "error: run: got no parts in $keep; accepted: after bench/gpu.sh take" >&2
        exit 2
    fi
    archive=$(joined)
    here=$(cd "$(dirname "$0")/.." && pwd)
    cd "$here"
    PYTHONPATH="$here/src" RAMIFY_CACHE="$keep/cache" exec "$python" bench/gpu.py "$archive" "$@"
    ;;
*)
    echo "error: got '${1:-}'; accepted: split, take, run (see the head of $0)" >&2
    exit 2
    ;;
esac
