"""Prints the layers of VGG16 and VGG19 as the tables in tensorflow_vgg/README.md: `python benchmarks/layers.py`."""

from math import prod

from tensorflow_vgg.network import NETWORKS, layer_names, layer_shape, parameter_shapes


def multiply_adds(network: str, upto: str = "prob") -> int:
    """What a photo costs up to a layer: each number of a convolution is a sum over 9 pixels of all channels."""
    total = 0
    for name, (kernel, _) in parameter_shapes(network, upto).items():
        height, width = layer_shape(network, name)[:2] if name.startswith("conv") else (1, 1)
        total += prod(kernel) * height * width
    return total


def table(network: str) -> str:
    """The layers of a network: output shape, parameters, and multiply-adds in the layer and up to it."""
    lines = [
        "| layer | output | parameters | multiply-adds | in all |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    shapes = parameter_shapes(network)
    before = 0
    for name in layer_names(network):
        output = " x ".join(map(str, layer_shape(network, name)))
        parameters = sum(map(prod, shapes[name])) if name in shapes else 0
        upto = multiply_adds(network, name)
        lines.append(f"| {name} | {output} | {parameters:,} | {upto - before:,} | {upto / 1e9:.2f} G |")
        before = upto
    total = sum(sum(map(prod, each)) for each in shapes.values())
    lines.append(f"| all | | {total:,} | {before:,} | {before / 1e9:.2f} G |")
    return "\n".join(lines)


def main() -> None:
    """Prints a table for each network."""
    print("\n\n".join(f"### {network.upper()}\n\n{table(network)}" for network in NETWORKS))


if __name__ == "__main__":
    main()
