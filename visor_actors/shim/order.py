"""Starting: a launch order, checked, and how a process becomes what it says."""

import errno
import fcntl
import os
import resource

from visor_actors.shim.explain import Refusal, explain_exec
from visor_actors.shim.lean import pair, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record

MARKER = "VISOR_CUSTODY"  # in the environment of a binary and all its descendants
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
            self.home_lock = str(order.get("home_lock") or "")
        except (KeyError, TypeError, ValueError) as error:
            raise Refusal(
                "invalid", f"the launch order is malformed: {error!r}", "report this as a bug"
            ) from None
        words = (self.executable, self.directory, self.home_lock, *self.argv, *self.env, *self.env.values())
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

    @property
    def owner(self) -> "tuple[int, int] | None":
        """Whose the files are that the binary shall find: uid and gid, None if they are ours anyway."""
        return None if self.identity is None else self.identity[:2]

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

    def launch(self, marker: str, null: int, out: int, err: int, locks: "list[int]") -> int:
        """Start the binary and return its pid; its own code runs then. Raise Refusal if it cannot be started.

        posix_spawn neither copies our memory for the child nor makes it pay for leaving that copy: it takes
        1 ms less than fork and exec. Limits and another user are beyond it, so these orders take the longer
        way.
        """
        descriptors = (null, out, err, *locks)  # become 0, 1, 2 and 3, and 4 if there are two locks
        environment = {**self.env, MARKER: marker}
        if self.limits or self.identity is not None:
            return self._fork(environment, descriptors)
        here = os.open(".", os.O_PATH | os.O_DIRECTORY)
        stage = "directory"
        try:
            os.chdir(self.directory)
            stage = "exec"
            return os.posix_spawn(
                self.executable,
                self.argv,
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(descriptors)],
                setsid=True,
                setsigmask=(),
                setsigdef=IGNORED,
            )
        except OSError as error:
            raise self._explain(stage, error.errno or 0, str(error)) from None
        finally:
            os.fchdir(here)
            os.close(here)

    def _fork(self, environment: "dict[str, str]", descriptors: "tuple[int, ...]") -> int:
        ours, theirs = pair()
        pid = os.fork()  # safe: we have one thread
        if pid == 0:
            self._become(environment, descriptors, theirs.fileno())
        theirs.close()
        said = ours.recv(8192)  # end of file once exec has succeeded
        ours.close()
        if said:
            os.waitpid(pid, 0)
            stage, number, detail = said.decode("utf-8", "replace").split(" ", 2)
            raise self._explain(stage, int(number), detail)
        return pid

    def _become(self, environment: "dict[str, str]", descriptors: "tuple[int, ...]", report: int) -> None:
        """In the forked child: turn into the binary. Returns never; says over ``report`` what failed."""
        stage = "setup"
        try:
            os.setsid()
            *kept, report = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (*descriptors, report))
            for number, fd in enumerate(kept):
                os.dup2(fd, number)  # inheritable from here on
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
            os.execve(self.executable, self.argv, environment)
        except OSError as error:
            os.write(report, f"{stage} {error.errno or 0} {error}".encode()[:4000])
        except BaseException as error:
            os.write(report, f"{stage} 0 {error!r}".encode()[:4000])
        finally:
            os._exit(127)

    def _explain(self, stage: str, number: int, detail: str) -> Refusal:
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
