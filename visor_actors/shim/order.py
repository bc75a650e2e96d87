"""Starting: a launch order, checked, and what the forked child does with it."""

import errno
import fcntl
import os
import resource

from visor_actors.shim.explain import Refusal, explain_exec
from visor_actors.shim.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record

MARKER = "VISOR_CUSTODY"  # in the environment of a binary and all its descendants
LOCK_FD = 3  # where the binary finds its slot's lock
IGNORED: "tuple[int, ...]" = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ)


class Order:
    """A launch order, checked. Raises :class:`Refusal` for a malformed one and for what can be known
    beforehand.
    """

    def __init__(self, order: "Record") -> None:
        try:
            self.executable = str(order["executable"])
            self.argv = [str(word) for word in order["argv"]]
            self.env = {str(name): str(value) for name, value in dict(order["env"]).items()}
            self.directory = str(order["working_directory"])
            self.output: Record | None = None if order["output"] is None else dict(order["output"])
            limits = {str(name): int(value) for name, value in dict(order["limits"]).items()}
            user = None if order["user"] is None else str(order["user"])
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(
                "invalid", f"the launch order is malformed: {error!r}", "report this as a bug"
            ) from None
        words = (self.executable, self.directory, *self.argv, *self.env, *self.env.values())
        if not self.argv or any("\0" in word for word in words) or any("=" in name for name in self.env):
            problem = "the launch order has no argv, a NUL in it, or an = in the name of a variable"
            raise Refusal("invalid", problem, "check the run configuration")
        self.limits: list[tuple[int, int]] = []
        for name, value in limits.items():
            number = getattr(resource, "RLIMIT_" + name.upper(), None)
            if number is None:
                raise Refusal(
                    "limits",
                    f"there is no resource limit {name!r}",
                    "use a name of `ulimit`, like nofile or core",
                )
            self.limits.append((number, value))
        self.identity = None if user is None else self._look_up(user)

    @staticmethod
    def _look_up(user: str) -> "tuple[int, int, list[int]] | None":
        import pwd

        try:
            entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
        except KeyError:
            raise Refusal(
                "user-unknown",
                f"there is no user {user!r} on this machine",
                "create the user or correct `user` in the run configuration",
            ) from None
        if entry.pw_uid == os.geteuid():
            return None
        if os.geteuid() != 0:
            raise Refusal(
                "permission",
                f"the binary shall run as user {user!r}, which needs root",
                "run visor as root or as that user itself",
            )
        return entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)

    def become(self, marker: str, null: int, out: int, err: int, lock: int, report: int) -> None:
        """In the forked child: turn into the binary. Returns never; says over ``report`` what failed."""
        stage = "setup"
        try:
            os.setsid()
            null, out, err, lock, report = (
                fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (null, out, err, lock, report)
            )
            for number, fd in enumerate((null, out, err, lock)):
                os.dup2(fd, number)  # inheritable from here on; LOCK_FD is the fourth
            os.closerange(LOCK_FD + 1, report)
            os.closerange(report + 1, 1 << 20)
            os.umask(0o022)
            stage = "limits"
            for limit, value in self.limits:
                resource.setrlimit(limit, (value, value))
            stage = "user"
            if self.identity is not None:
                uid, gid, groups = self.identity
                os.setgroups(groups)
                os.setgid(gid)
                os.setuid(uid)
            stage = "directory"
            os.chdir(self.directory)
            stage = "exec"
            for number in IGNORED:
                signal.signal(number, signal.SIG_DFL)
            if os.read(report, 1) == b"g":  # only now are we on record
                os.execve(self.executable, self.argv, {**self.env, MARKER: marker})
        except OSError as error:
            os.write(report, f"{stage} {error.errno or 0}".encode())
        except BaseException as error:
            os.write(report, f"{stage} 0 {error!r}".encode()[:4000])
        finally:
            os._exit(127)

    def explain(self, stage: str, number: int, detail: str) -> Refusal:
        """Say in words why the child failed at ``stage`` with errno ``number``."""
        reason = os.strerror(number) if number else detail
        if stage == "directory":
            kind = "directory-missing" if number in (errno.ENOENT, errno.ENOTDIR) else "permission"
            return Refusal(
                kind,
                f"working directory {self.directory}: {reason}",
                "create it or correct `workingDirectory` in the run configuration",
            )
        if stage == "limits":
            return Refusal(
                "limits",
                f"a resource limit cannot be set: {reason}",
                "ask for no more than the hard limit, or raise it (LimitNOFILE= in the systemd unit)",
            )
        if stage == "user":
            return Refusal("permission", f"cannot become the user: {reason}", "run visor as root")
        if stage == "exec":
            return explain_exec(os.path.join(self.directory, self.executable), number, reason)
        return Refusal("resources", f"the process could not be set up: {reason}", "check memory and limits")
