#!/bin/sh
# From drawings to few-shot accuracy on unseen alphabets: images, backbone, features, LEO and its baselines.
#
#   sh examples/omniglot.sh [DRAWINGS.npz]     # from the repository's root; results go to runs/, the rest to data/
#
# Without an argument it downloads all of Omniglot. DRAWINGS.npz has arrays `images` (n, H, W), `labels` (n,) and
# `names` (C,) such as Greek/character01, and must contain the alphabets named below. Finished steps are kept:
# after a stop, the same command continues.
set -e
PYTHON=${PYTHON:-.venv/bin/python}
NAME=omniglot${1:+_small}
IMAGES=data/$NAME RUNS=runs
# The matrices are small: a second thread would only slow down the process that reads images.
export OMP_NUM_THREADS=1

if [ ! -d "$IMAGES" ]; then
    if [ -n "$1" ]; then
        "$PYTHON" -m leo_lightning images import "$1" "$IMAGES" --turned \
            --val Early_Aramaic,Tagalog --test Latin,Greek
    else
        "$PYTHON" -m leo_lightning images download omniglot "$IMAGES" --turned
    fi
fi

if [ ! -e "$RUNS/backbone_$NAME/done" ]; then
    "$PYTHON" -m leo_lightning pretrain fit --config configs/pretrain/omniglot_conv4.yaml \
        --data.root "$IMAGES" --run.name "backbone_$NAME" --resume auto
    touch "$RUNS/backbone_$NAME/done"
fi
BACKBONE=$(ls -d "$RUNS/backbone_$NAME"/*/checkpoints/best.ckpt | tail -n 1)

# The last layer has one place. The third block, with all its places, is closer to the paper's intermediate layer.
[ -d "data/${NAME}_final" ] || "$PYTHON" -m leo_lightning features extract --images "$IMAGES" \
    --weights "$BACKBONE" --out "data/${NAME}_final"
[ -d "data/${NAME}_block3" ] || "$PYTHON" -m leo_lightning features extract --images "$IMAGES" \
    --weights "$BACKBONE" --layer 2 --pooling flatten --out "data/${NAME}_block3"
[ -d "data/${NAME}_pixels" ] || "$PYTHON" -m examples.pixels "$IMAGES" "data/${NAME}_pixels"

# unless_tested NAME ARGUMENTS: run train.py, unless the run NAME already has results.
unless_tested() {
    RUN=$1
    shift
    ls "$RUNS/$RUN"/*/results.json >/dev/null 2>&1 || "$PYTHON" train.py "$@" --run.name "$RUN"
}

for WAY in 5 20; do
    TASKS="--data.way $WAY --data.query 10 --data.test_tasks 2000"
    for FEATURES in pixels final block3; do
        unless_tested "${NAME}_centroid_${FEATURES}_${WAY}way" test $TASKS \
            --config configs/methods/nearest_centroid.yaml --data.root "data/${NAME}_$FEATURES"
    done
    unless_tested "${NAME}_leo_block3_${WAY}way" fit_test --config configs/omniglot_1shot.yaml $TASKS \
        --data.batch_size $((60 / WAY)) --data.root "data/${NAME}_block3" --resume auto
done

"$PYTHON" -m examples.table "$RUNS" "$NAME"
