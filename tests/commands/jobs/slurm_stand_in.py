"""Stand-in for SLURM: sbatch, srun, squeue, sacct, scontrol and scancel, as one script under six names.

A job is a process on this machine, in a session of its own. The folder of the script holds a file for each
job, `jobs/NUMBER`, with its state, process and script. `scancel --signal=USR2 NUMBER` is a preemption.
"""

import sys
from pathlib import Path

SCRIPT = '''#!{python}
import os, re, signal, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
JOBS, LOG = HERE / "jobs", HERE / "log"
JOBS.mkdir(exist_ok=True)
name, words = Path(sys.argv[0]).name, sys.argv[1:]


def say(line):
    with LOG.open("a") as file:
        file.write(line + "\\n")


def read(number):
    return (JOBS / number).read_text().split("|")


def write(number, state, process, script):
    part = JOBS / f".{{number}}.{{os.getpid()}}"
    part.write_text("|".join([state, str(process), str(script)]))
    part.rename(JOBS / number)


def numbers():
    return sorted(path.name for path in JOBS.iterdir() if path.name.isdigit())


def start(number, script):
    """A process that runs the script, and again each time that it was requeued."""
    if os.fork():
        return
    os.setsid()
    for stream, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, mode), stream)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    environment = {{**os.environ, "SLURM_JOB_ID": number, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}}
    while True:
        child = subprocess.Popen(["bash", str(script)], env=environment, start_new_session=True)
        write(number, "RUNNING", child.pid, script)
        say(f"{{number}} RUNNING")
        code = child.wait()
        state = read(number)[0]
        if state == "REQUEUED":
            say(f"{{number}} REQUEUED, its process ended with {{code}}")
            time.sleep(float(os.environ.get("STAND_IN_QUEUE", 2)))
            continue
        state = state if state == "CANCELLED" else "FAILED" if code else "COMPLETED"
        write(number, state, 0, script)
        say(f"{{number}} {{state}} with {{code}}")
        os._exit(0)


if name == "sbatch":
    if "--partition=refused" in Path(words[-1]).read_text():
        sys.exit("sbatch: error: invalid partition specified: refused")
    number = str(100 + len(numbers()))
    script = JOBS / f"{{number}}.sh"  # SLURM keeps a copy, too
    script.write_text(Path(words[-1]).read_text())
    write(number, "PENDING", 0, script)
    say(f"{{number}} submitted: {{Path(words[-1]).name}}")
    print("Submitted batch job", number)
    sys.stdout.flush()
    start(number, script)
elif name == "srun":
    options = dict(zip(words[::1], words[1::1]))
    number = os.environ["SLURM_JOB_ID"]
    for option, stream in (("--output", 1), ("--error", 2)):
        place = options[option].replace("%j", number).replace("%t", "0")
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    rest = words[words.index("--error") + 2 :]
    write(number, "RUNNING", os.getpid(), read(number)[2])  # exec keeps the process
    os.execvp(rest[0], rest)
elif name == "squeue":
    print(*(n for n in numbers() if read(n)[0] in ("PENDING", "RUNNING", "REQUEUED")), sep="\\n")
elif name == "sacct":
    print("JobID|State|NodeList")
    for number in numbers():
        print(f"{{number}}|{{read(number)[0]}}|here")
elif name == "scontrol":
    _, process, script = read(words[1])
    write(words[1], "REQUEUED", process, script)
    say(f"{{words[1]}} scontrol requeue")
elif name == "scancel":
    signals = [word.partition("=")[2] for word in words if word.startswith("--signal")]
    (number,) = [word for word in words if word.isdigit()]
    state, process, script = read(number)
    say(f"{{number}} scancel {{' '.join(signals)}}".rstrip())
    if not signals:
        write(number, "CANCELLED", process, script)
    if int(process):
        os.kill(int(process), getattr(signal, "SIG" + (signals or ["TERM"])[0]))
        if not signals and not os.fork():
            os.setsid()
            for stream in (0, 1, 2):
                os.close(stream)
            time.sleep(float(os.environ.get("STAND_IN_KILL_WAIT", 10)))
            os.kill(int(process), signal.SIGKILL)
'''


def install(folder: Path) -> Path:
    """Make the commands in a folder; the file in which they say what happens."""
    folder.mkdir(parents=True)
    script = folder / "slurm"
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    for name in ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel"):
        (folder / name).symlink_to(script)
    return folder / "log"
