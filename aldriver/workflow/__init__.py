"""Campaigns as FireWorks workflows: one per generation, thin tasks, files as the truth.

Owns the launchpad, the campaign's layout and the order of stages; what a stage computes is its own room's business.

What the command line calls (all light to import; FireWorks and the stages are imported when work begins):

``campaign``
    ``create(recipe_path, root, *, accept_changes=False) -> Campaign``  new campaign, or the one already there
    (``InputError``: the recipe changed, or `root` holds another campaign or foreign files);
    ``open_campaign(root) -> Campaign``; ``Campaign`` has ``root, id, name, digest, recipe, ledger`` and the paths of
    the layout (``stage(g, name)``, ``walker(g, i)``, ``potential(fp)``); ``promoted(campaign) -> Path | None``.
``control``
    ``launch(root, *, launchpad=None) -> dict``  put what is missing on the launchpad, without working on it;
    ``resume(root, *, launchpad=None, force=False) -> dict``  rebuild the launchpad's intent from the files;
    ``cancel(root, *, launchpad=None, reason="") -> dict``  defuse the workflows, stop what runs here;
    ``work(root=None, *, launchpad=None, category=None, max_tasks=0, wait=False) -> int``  take tasks.
``run``
    ``run(root, *, workers=None, launchpad=None, on_event=None) -> Outcome``  rebuild, then work with local worker
    processes until the campaign ends; raises ``CampaignBusyError`` for a second run. ``Outcome`` has ``state``
    ('finished' | 'cancelled' | 'failed'), ``reason``, ``generation``, ``promoted`` (path), ``seconds``.
    `on_event` gets each new ledger entry as it is, ``{"event": "progress", "running": [{pid, stage, generation, index,
    done, total, eta_s, note, started}]}`` about twice a second, and ``{"event": "warning", "message": ...}``.
``status``
    ``status(root, *, launchpad=None) -> dict``; ``status_all(*, launchpad=None) -> list[dict]``.
``service``
    ``start() -> Service`` (``host, port, pid, home``), ``stop() -> bool``, ``status() -> dict``.
``launchpad``
    ``connection(path=None) -> Connection`` (``describe()`` is safe to print), ``connect(path=None) -> LaunchPad``,
    ``write_launchpad_file(path) -> Path``.
"""
