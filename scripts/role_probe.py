"""Print what a linear probe reads off encoders trained on `treebank_roles`, plain and with forgetting: python scripts/role_probe.py

Three seeds, 599 updates each; for each layer the share of words read right, of tagged words held out and of made sentences by kind.
"""

import torch
from torch.nn import functional

from everlearn.data.role_sentences import treebank_roles
from everlearn.data.role_templates import RoleTemplates
from everlearn.data.tagged_sentences import english_web_treebank
from everlearn.measure.probe import encoder_states, probe_roles
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Forgetting, Reset


def main() -> None:
    """A line for each seed and regime."""
    torch.set_num_threads(1)
    sentences = english_web_treebank("train")
    for seed in range(3):
        stream = treebank_roles(words=1000, seed=seed)
        templates = RoleTemplates(*stream.words, each=200, new=200, seed=seed)
        for label, stop in (("plain", 0), ("active", None)):
            model = TinyEncoder(stream.size, length=2 * stream.window + 1, answers=stream.asked, tags=2, seed=seed)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
            forgetting = Forgetting(model, ["table"], optimizer, Reset(10, stop, exclude_rows=stream.kept), seed=seed)
            for t in range(1, 600):  # update 600 would be followed by a reset
                batch = stream[t]
                optimizer.zero_grad()
                functional.cross_entropy(model(batch.x)[:, 0], batch.y[:, stream.window]).backward()
                optimizer.step()
                forgetting.after(t)
            reading = probe_roles(encoder_states(model, stream, seed=seed), sentences, templates, count=2000, seed=seed)
            shares = {"held": reading.held, **reading.made}
            told = "  ".join(f"{kind} {' '.join(f'{share:.3f}' for share in own)}" for kind, own in shares.items())
            print(f"seed {seed}  {label:<6}  {told}", flush=True)


if __name__ == "__main__":
    main()
