"""Campaigns for rlctl; each folder is one."""


def register() -> None:
    """Register the environments with Gymnasium; called by its plug-in mechanism."""
    import gymnasium

    for name, factory in (("BlockCopolymer", "block_copolymer"), ("MoldableQueue", "moldable_queue")):
        gymnasium.register(
            id=f"rlctl/{name}-v0", entry_point="rlctl.env:make_env", kwargs={"campaign": factory}, order_enforce=True
        )
