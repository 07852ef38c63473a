"""The one family of errors that a user can cause; the command line turns each into one line."""


class RlctlError(Exception):
    """Something the user can mend: names the thing, the value, the place and the next step."""


class ConfigError(RlctlError):
    """A configuration, option or override that cannot be used."""


class JournalError(RlctlError):
    """A journal that is missing, of another schema, or of another campaign."""


class PolicyError(RlctlError):
    """A saved policy that is missing, damaged, of another schema or of another campaign."""


class LaunchError(RlctlError):
    """A program, launcher or resource that a task needs and this machine does not have."""


class ContractError(RlctlError):
    """A campaign that breaks a promise of ``rlctl.campaign``; the message names the method at fault."""
