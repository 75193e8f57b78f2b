"""Who may do what: roles, what each may do, and the caller of a request. Pure."""

from enum import StrEnum

from msgspec import Struct

from chalicelib.domain.errors import Forbidden, JobNotFound
from chalicelib.domain.labels import normalize


class Permission(StrEnum):
    """What a route needs; the value completes "may not ..."."""

    READ = "read jobs and executions"
    START = "start jobs"
    EDIT = "create, edit or delete jobs"
    AUDIT = "read the audit"


class Role(StrEnum):
    """What a token is for. Each role may do what the one before it may, and more."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


GRANTS = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.OPERATOR: frozenset({Permission.READ, Permission.START}),
    Role.ADMIN: frozenset(Permission),
}


class Caller(Struct, frozen=True, kw_only=True):
    """Who sent a request, and what its token allows."""

    name: str
    # The first characters of the token's hash: names need not be unique.
    token_id: str
    role: Role
    # The applications that the token is bound to; none: it is valid for all.
    apps: tuple[str, ...] = ()
    may_run_as_root: bool = False
    # These two differ from request to request.
    source_ip: str = ""
    request_id: str = ""

    def require(self, permission: Permission) -> None:
        """Raises Forbidden if the role does not have the permission."""
        if permission not in GRANTS[self.role]:
            raise Forbidden(f"the role {self.role} may not {permission}")

    def sees(self, app_name: str) -> bool:
        """Whether the application's jobs exist for this caller."""
        return not self.apps or normalize(app_name) in map(normalize, self.apps)

    def require_visible(self, job_id: str, app_name: str) -> None:
        """Raises JobNotFound if the caller does not see the application that the job is in."""
        if not self.sees(app_name):
            raise JobNotFound(job_id)

    def require_app(self, app_name: str) -> None:
        """Raises Forbidden if the caller must not put a job into this application."""
        if not self.sees(app_name):
            bound = ", ".join(self.apps)
            raise Forbidden(f"this token is bound to {bound}; it may not put a job into {app_name}")

    def require_root(self, privileged: bool, user: str) -> None:
        """Raises Forbidden if the command runs as root and the token does not have that right."""
        if (privileged or is_root(user)) and not self.may_run_as_root:
            raise Forbidden(
                "a job that is Privileged or whose User is root needs a token with the right to run "
                "as root (made with --root)"
            )


def is_root(user: str) -> bool:
    """Whether a job's User is root, as an engine reads it: `root`, or a number that is 0, as `00` is."""
    name = user.partition(":")[0]
    return name == "root" or (name.isdecimal() and int(name) == 0)
