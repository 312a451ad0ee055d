"""A small output-stationary accelerator: an 8 x 8 array, one shared buffer, DRAM."""

from __future__ import annotations

from tilewright.protocol.architecture import Architecture, Compute, Constraints, DesignSpace, Level, LevelConstraint, Parameter


class Nano:
    """The target plugin."""

    def design_space(self) -> DesignSpace:
        """The buffer size and the side of the array."""
        return DesignSpace(
            (
                Parameter("array_side", "PEs", low=2, high=32, default=8, step=2, geometric=True),
                Parameter("buffer_kib", "KiB", low=8, high=512, default=64, step=2, geometric=True),
            )
        )

    def architecture(self, **parameters: int) -> Architecture:
        """An array of ``array_side`` x ``array_side`` units over a buffer of ``buffer_kib``."""
        values = self.design_space().resolve(parameters)
        side, kib = values["array_side"], values["buffer_kib"]
        return Architecture(
            name="nano",
            compute=Compute("MAC", side * side, side, side, energy_pj=0.5),
            levels=(
                Level(
                    "Registers",
                    capacity_bits=64,
                    word_bits=32,
                    instances=side * side,
                    mesh_x=side,
                    mesh_y=side,
                    keeps=("Outputs",),
                    read_energy_pj=0.1,
                    fill_energy_pj=0.1,
                    update_energy_pj=0.1,
                ),
                Level(
                    "Buffer",
                    capacity_bits=kib * 8192,
                    shared_bandwidth=4.0 * side,
                    keeps=("Weights", "Inputs", "Outputs"),
                    read_energy_pj=2.0,
                    fill_energy_pj=2.0,
                    update_energy_pj=2.0,
                ),
                Level(
                    "DRAM",
                    shared_bandwidth=8.0,
                    keeps=("Weights", "Inputs", "Outputs"),
                    read_energy_pj=100.0,
                    fill_energy_pj=100.0,
                    update_energy_pj=100.0,
                ),
            ),
            source="an example; the figures are invented",
        )

    def constraints(self) -> Constraints:
        """Rows and columns of the result lie across the array."""
        return Constraints(
            (
                LevelConstraint("Registers", spatial_dims=()),
                LevelConstraint("Buffer", spatial_dims=("P", "K")),
                LevelConstraint("DRAM", spatial_dims=()),
            )
        )
