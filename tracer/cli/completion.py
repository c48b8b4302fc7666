"""``mkwrite completion``: the shell's half of tab completion."""

from __future__ import annotations

import click

from tracer.cli.names import COMPLETE_VAR, PROGRAM

EXAMPLES = """\b
Examples:
  mkwrite completion bash > /etc/bash_completion.d/mkwrite
  mkwrite completion zsh > /usr/local/share/zsh/site-functions/_mkwrite
  mkwrite completion fish > ~/.config/fish/completions/mkwrite.fish
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script for tab completion in SHELL."""
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    assert complete is not None
    script = complete(context.find_root().command, {}, PROGRAM, COMPLETE_VAR).source()
    # For bash, click runs the command that was typed: a tab after ./mkwrite would run a file of the working directory.
    click.echo(script.replace("_complete $1)", f"_complete {PROGRAM})"))
