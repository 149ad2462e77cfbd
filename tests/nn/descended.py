"""A short training of a recurrent network, for tests that ask whether its gradients lead anywhere."""

import torch


def descended(network, x, dt, target, rate, steps):
    """The squared errors before each of some steps of Adam; network(x, dt=dt)[0] is to become the target."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(x, dt=dt)[0] - target).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
