"""What the figures depend on: the device, and the libraries that torch was built with."""

import part
import torch


def main() -> None:
    """Report the device, or end with code 1 where there is none."""
    options, report = part.start("machine")
    if options.device == "cpu":
        bf16 = ", bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else ""
        report.figure("CPU", torch.get_num_threads(), "threads", f"torch {torch.__version__}{bf16}")
        return
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device")
    properties = torch.cuda.get_device_properties(0)
    # Something must run there: a process that was forked from one that had used CUDA sees the device and cannot.
    torch.zeros(1, device="cuda").item()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "none"
    built = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, NCCL {nccl}"
    report.figure("GPU", properties.total_memory / 1e9, "GB", f"{properties.name}, {built}")


if __name__ == "__main__":
    main()
