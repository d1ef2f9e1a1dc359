"""Print the layers of VGG16 and VGG19 as the tables of tensorflow_vgg/README.md."""

from math import prod

from tensorflow_vgg.network import NETWORKS, layer_names, layer_shape, parameter_shapes


def multiply_adds(network: str, last_layer: str = "prob") -> int:
    """Return the multiply-adds per photo up to a layer: kernel size times output positions, summed over the layers."""
    total = 0
    for name, (kernel, _) in parameter_shapes(network, last_layer).items():
        height, width = layer_shape(network, name)[:2] if name.startswith("conv") else (1, 1)
        total += prod(kernel) * height * width
    return total


def table(network: str) -> str:
    """Return a table of a network's layers: output shape, parameters, and multiply-adds in the layer and up to it."""
    lines = [
        "| layer | output | parameters | multiply-adds | cumulative |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    shapes = parameter_shapes(network)
    before = 0
    for name in layer_names(network):
        output = " x ".join(map(str, layer_shape(network, name)))
        parameters = sum(map(prod, shapes[name])) if name in shapes else 0
        cumulative = multiply_adds(network, name)
        lines.append(f"| {name} | {output} | {parameters:,} | {cumulative - before:,} | {cumulative / 1e9:.2f} G |")
        before = cumulative
    total = sum(sum(map(prod, each)) for each in shapes.values())
    lines.append(f"| total | | {total:,} | {before:,} | {before / 1e9:.2f} G |")
    return "\n".join(lines)


def main() -> None:
    """Print a table per network."""
    print("\n\n".join(f"### {network.upper()}\n\n{table(network)}" for network in NETWORKS))


if __name__ == "__main__":
    main()
