"""Every benchmark, one after the other: ``python tests/benchmarks/run.py``. Quote ratios, not seconds."""

import bench_finite
import bench_step
import bench_views

if __name__ == "__main__":
    bench_step.main()
    bench_views.main()
    bench_finite.main()
