#!/usr/bin/env bash
# Train `pages` from nothing: its reader and its language side at the same time, a core each, then join and calibrate them.
#
#     scripts/train_pages.sh runs/pages
#     READER=2 WORDS=2 TEXTS=8 DOCUMENTS=4 scripts/train_pages.sh runs/try     # some minutes, to see that it works
#
# READER and WORDS are CPU minutes, TEXTS how many pages the language side learns on, and DOCUMENTS how many
# the confidence is calibrated on. The defaults take six hours on two cores, by estimate. The reader takes one core, and
# a process beside it draws its pages. Ctrl-C leaves checkpoints, and a second call resumes from them. Browser-laid pages
# need Debian's chromium, and the encoder the package rapidocr. Relative folders start at the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?which folder to train in, such as runs/pages}
reader_minutes=${READER:-300} words_minutes=${WORDS:-150} texts=${TEXTS:-5600} documents=${DOCUMENTS:-40}
slime=$(command -v slime) || { echo "slime is not on the PATH: activate the environment that it is installed in" >&2; exit 2; }
python=$(dirname "$slime")/python3
[ -x "$python" ] || python=$(command -v python3)
export OMP_NUM_THREADS=1
mkdir -p "$out"

"$python" scripts/fetch_fonts.py "$out/fonts"
"$python" scripts/fetch_typeset_pdfs.py "$out/pdfs"
[ -f "$out/encoder/config.json" ] || "$python" scripts/convert_recogniser.py "$out/encoder"

read_pages() {
    "$python" scripts/train_reader.py "$out/encoder" "$out/reader" --pdfs "$out/pdfs" --fonts "$out/fonts" --threads 1 \
        --context 2 --looks 0.65 --heldout-looks 1 --large 0.3 --x-height 7.5 14 --average 0.998 \
        --cpu-minutes "$reader_minutes" --eval-pages 4 --eval-minutes 30
}

find_answers() {
    gather documents --source browser --count $((texts * 5 / 8)) --questions 16
    gather mosaics --source browser --count $((texts / 4)) --questions 16 --seed 100000 \
        --templates mosaic_sheet mosaic_screen
    gather typeset --source typeset --pdfs "$out/pdfs" --count $((texts / 8)) --questions 12 --longest 2600
    "$python" scripts/train_words.py "$out/words" --words "$out/fonts/wamerican/usr/share/dict/american-english" \
        --pages "$out"/{documents,mosaics,typeset}.jsonl.gz --pages-share 0.6 --cell 24 24 --misread 0.08 --look 0.3 \
        --cpu-minutes "$words_minutes" --eval-minutes 20
}

gather() {
    local file="$out/$1.jsonl.gz"
    [ -f "$file" ] || "$python" scripts/gather_text_pages.py "$file" --fonts "$out/fonts" --threads 1 --looks 0.5 "${@:2}"
}

# Job control gives each process a group of its own, so that Ctrl-C reaches it once, from here.
set -m
running=()
trap 'kill -INT -- ${running[@]+"${running[@]/#/-}"} 2> /dev/null || true; wait; exit 130' INT TERM HUP
read_pages &
running+=($!)
find_answers &
running+=($!)
for process in "${running[@]}"; do wait "$process" || failed=1; done
[ -z "${failed:-}" ] || exit 1
trap - INT TERM HUP
set +m

[ -d "$out/model" ] || "$python" scripts/join_reader.py "$out/reader" "$out/words" "$out/encoder" "$out/model" \
    --max-tiles 40 --budget 128 --refusal-bias 0.7
"$slime" pages --source browser --split heldout --look mixed --count "$documents" --seed 600 --fonts "$out/fonts" \
    --out "$out/documents"
"$python" scripts/calibrate_answers.py "$out/model" "$out/documents/pages.jsonl" --fit
echo "$out/model: slime ask page.png --model $out/model -q \"What is the total?\""
