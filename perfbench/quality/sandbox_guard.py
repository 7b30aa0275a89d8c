"""The inside of the code sandbox: builds walls, sets limits, gives up rights, then runs one program. The standard library only.

Started by `sandbox` as `python -I -S sandbox_guard.py PLAN`, PLAN being JSON. Two steps, each a process of its own:

    walls    namespaces for mounts, network, processes, IPC and host name; a file system of read-only system folders and one small tmpfs;
             then `inside`. bubblewrap does this step where it is installed. `"walls": false` (the weak level) only collects what is left behind.
    inside   resource limits, another user, no new rights, a seccomp filter; then the program, as `__main__` of this same interpreter

As root the namespaces are made with root's rights and the program becomes a user that owns nothing; otherwise inside a user namespace.
The filter closes what mounts and limits leave open: sockets, memory that no process is charged for, further namespaces, tracing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
from typing import Any, NoReturn

_NEW_MOUNTS, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PIDS, _NEW_NET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_ALL_NEW = _NEW_MOUNTS | _NEW_UTS | _NEW_IPC | _NEW_USER | _NEW_PIDS | _NEW_NET | 0x02000000
_MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_RDONLY, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 32, 1, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442  # the same on every architecture
_AT_RECURSIVE, _ATTR_RDONLY, _ATTR_NOSUID = 0x8000, 0x1, 0x2
_PR_CAP_AMBIENT, _CLEAR_ALL, _CAPABILITY_VERSION = 47, 4, 0x20080522
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
DEVICES = ("null", "random", "urandom")  # not zero: mapped shared it is memory that stays when no process shows it

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7
_REFUSED: dict[str, tuple[int, int]] = {
    # name: number on x86_64, number on aarch64 (asm/unistd.h)
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "open_by_handle_at": (304, 265), "kcmp": (312, 272),
    # A page in a pipe keeps its whole huge page; a socket pair takes twice `net.core.wmem_max` in the kernel where its buffers may be set.
    "vmsplice": (278, 75), "setsockopt": (54, 208), "pidfd_getfd": (438, 438),
}  # fmt: skip
_CLONE, _CLONE3, _MMAP = (56, 220), (435, 435), (9, 222)
_SHARED_ANONYMOUS = 0x21
"""Flags of a mapping that lives on in a child which never touches it, where no resident memory shows it."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Carry out the plan in the first argument."""
    plan: dict[str, Any] = json.loads(sys.argv[1])
    if plan["step"] == "inside":
        _inside(plan)
    elif plan["walls"]:
        _walls(plan)
    else:
        _collect_what_is_left(plan)


# -- walls


def _walls(plan: dict[str, Any]) -> NoReturn:
    """outer process -> first process of the new namespaces -> the program. When either of the first two dies, the kernel kills the rest."""
    _die_with_parent(plan["parent"])
    unprivileged = os.geteuid() != 0
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEW_MOUNTS | _NEW_UTS | _NEW_IPC | _NEW_PIDS | _NEW_NET | (_NEW_USER if unprivileged else 0)), "unshare")
    if unprivileged:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{plan['uid']} {uid} 1")
        _write("/proc/self/gid_map", f"{plan['uid']} {gid} 1")
    watched, kept_open = os.pipe()  # closes when the outer process ends: inside, its id reads 0 whether it lives or not
    first = os.fork()
    if first:
        os.close(watched)
        _end_like(os.waitpid(first, 0)[1])
    os.close(kept_open)
    _die_with_parent(None)
    if select.select([watched], [], [], 0)[0]:
        os._exit(1)
    os.close(watched)
    _new_root(plan)
    program = os.fork()
    if program == 0:
        _run_inside(plan)
    while True:  # the first process of a namespace inherits all orphans; it ends with the program, and everything with it
        ended, status = os.wait()
        if ended == program:
            _end_like(status)


def _new_root(plan: dict[str, Any]) -> None:
    """Only what the plan names can be seen: system folders read-only, the program's folder read-only, `/work` a tmpfs of limited size."""
    root = plan["root"]
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "private mounts")
    # Two levels: after `chroot` into the second no further user namespace can be made (user_namespaces(7)).
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,nr_inodes=4096,mode=755")
    top = f"{root}/top"
    for folder in ("", "/work", "/dev"):
        os.mkdir(top + folder)
    for path in plan["read_only"]:
        if os.path.islink(path):
            os.makedirs(os.path.dirname(top + path), exist_ok=True)
            os.symlink(os.readlink(path), top + path)
        elif os.path.exists(path):
            _bind(path, top + path, read_only=True)
    _bind(plan["code"], f"{top}/code", read_only=True)
    for name in DEVICES:
        _bind(f"/dev/{name}", f"{top}/dev/{name}", read_only=False)
    owner = f",uid={plan['uid']},gid={plan['uid']}"
    _mount("tmpfs", f"{top}/work", "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={plan['files_bytes']},nr_inodes={plan['files']},mode=700{owner}")
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
    _mount("tmpfs", "/", "tmpfs", _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "")
    os.chroot("/top")
    os.chdir("/work")


def _bind(source: str, target: str, *, read_only: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb"):
            pass
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None), f"bind {source}")
    if read_only:
        attributes = ctypes.create_string_buffer(struct.pack("=4Q", _ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0))
        path = ctypes.c_char_p(os.fsencode(target))
        done = _libc.syscall(ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_int(-100), path, ctypes.c_uint(_AT_RECURSIVE), attributes, ctypes.c_size_t(32))
        _check(done, f"make {source} read-only")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    _check(_libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()), f"mount {kind} at {target}")


def _run_inside(plan: dict[str, Any]) -> NoReturn:
    """A new process image: the rights that came with a user namespace end here."""
    _execute({**plan, "step": "inside", "code": "/code"}, "/code/guard.py")


def _execute(plan: dict[str, Any], guard: str) -> NoReturn:
    os.execve(plan["python"], [plan["python"], "-I", "-S", guard, json.dumps(plan, separators=(",", ":"))], dict(os.environ))  # noqa: S606 - no shell


# -- the weak level


def _collect_what_is_left(plan: dict[str, Any]) -> NoReturn:
    """No walls: run the program in its folder, adopt what it leaves behind, kill all of that, and end as it ended."""
    _check(_libc.prctl(_PR_SET_SUBREAPER, 1, 0, 0, 0), "subreaper")
    signal.signal(signal.SIGTERM, lambda number, frame: _kill_all(plan, 128 + number))
    _die_with_parent(plan["parent"], signal.SIGTERM)
    os.chdir(plan["work"])
    program = os.fork()
    if program == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _execute({**plan, "step": "inside"}, __file__)
    ended, status = os.wait()
    while ended != program:
        ended, status = os.wait()
    _kill_all(plan, 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _kill_all(plan: dict[str, Any], exit_code: int) -> NoReturn:
    """Until none is left: orphans of a killed process become our children in turn."""
    while True:
        if os.geteuid() == 0:  # all of a user at once, so that no fork slips through
            killer = os.fork()
            if killer == 0:
                os.setuid(plan["uid"])
                os.kill(-1, signal.SIGKILL)
                os._exit(0)
            os.waitpid(killer, 0)
        else:
            # A stopped process keeps its place under the limit: when nobody new turns up, nobody can fork any more.
            stopped: set[int] = set()
            while new := _descendants(os.getpid()) - stopped:
                _signal_all(new, signal.SIGSTOP)
                stopped |= new
            _signal_all(stopped, signal.SIGKILL)
        try:
            while True:
                os.wait()
        except ChildProcessError:
            os._exit(exit_code)


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        for child in file.read().split():
            found |= {int(child)} | _descendants(int(child))
    return found


def _signal_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# -- inside


def _inside(plan: dict[str, Any]) -> None:
    if plan.get("bound_work"):
        _mount("tmpfs", "/work", "tmpfs", _MS_REMOUNT | _MS_NOSUID | _MS_NODEV, f"size={plan['files_bytes']},nr_inodes={plan['files']}")
    _set_limits(plan)
    if os.geteuid() == 0:  # made by root: become somebody who owns nothing
        os.setgroups([])
        os.setgid(plan["uid"])
        os.setuid(plan["uid"])
    _give_up_rights()
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _filter_calls()
    path = f"{plan['code']}/main.py"
    with open(path, encoding="utf-8") as file:
        source = file.read()
    program = {"__name__": "__main__", "__file__": path, "__builtins__": __builtins__}
    sys.argv = [path]
    exec(compile(source, path, "exec"), program)  # noqa: S102 - what the sandbox is for


def _give_up_rights() -> None:
    """Every capability. A change from root to another user has done it; inside a user namespace, where nobody is root, nothing has."""
    _check(_libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0), "ambient rights")
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)
    _check(_libc.capset(ctypes.create_string_buffer(header), ctypes.create_string_buffer(none)), "give up rights")


def _set_limits(plan: dict[str, Any]) -> None:
    limits = {
        resource.RLIMIT_AS: plan["memory_bytes"], resource.RLIMIT_CPU: plan["cpu_s"], resource.RLIMIT_NPROC: plan["processes"],
        resource.RLIMIT_FSIZE: plan["files_bytes"], resource.RLIMIT_NOFILE: 64, resource.RLIMIT_CORE: 0, resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0, resource.RLIMIT_SIGPENDING: 256,  # timers too
    }  # fmt: skip
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (allowed, allowed))
    os.nice(5)


def _filter_calls() -> None:
    """A seccomp filter (classic BPF): calls of the list fail with EPERM, clone3 with ENOSYS so that libc falls back to clone, whose flags can be read."""
    machine = os.uname().machine
    if machine not in ("x86_64", "aarch64"):
        return
    column, arch = (0, _X86_64) if machine == "x86_64" else (1, _AARCH64)
    load, equal, at_least, any_bit, keep, done = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    refuse, unknown, kill, allow = 0x00050000 | 1, 0x00050000 | 38, 0x80000000, 0x7FFF0000
    code: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4), (equal, 1, 0, arch), (done, 0, 0, kill),  # another calling convention of the same machine
        (load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (done, 0, 0, kill),  # x32
        (equal, 0, 1, _CLONE3[column]), (done, 0, 0, unknown),
        (equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (any_bit, 0, 1, _ALL_NEW), (done, 0, 0, refuse), (load, 0, 0, 0),
        (equal, 0, 5, _MMAP[column]), (load, 0, 0, 40), (keep, 0, 0, _SHARED_ANONYMOUS), (equal, 0, 1, _SHARED_ANONYMOUS),
        (done, 0, 0, refuse), (load, 0, 0, 0),
    ]  # fmt: skip
    for numbers in _REFUSED.values():
        code += [(equal, 0, 1, numbers[column]), (done, 0, 0, refuse)]
    code.append((done, 0, 0, allow))
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(filters)))
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, program, 0, 0), "seccomp")


# -- plumbing


def _die_with_parent(parent: int | None, number: int = signal.SIGKILL) -> None:
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0), "die with parent")
    if parent is not None and os.getppid() != parent:  # it died before this was said
        os._exit(1)


def _end_like(status: int) -> NoReturn:
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
