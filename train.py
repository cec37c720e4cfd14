"""Train, evaluate and use few-shot learners: `python train.py --help`."""

from leo_lightning.__main__ import start

if __name__ == "__main__":
    start()
