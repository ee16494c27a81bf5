"""`python -m slime_vlm`, the command `slime`: for launchers that start a module, such as torchrun and accelerate."""

from slime_vlm.cli import main

if __name__ == "__main__":
    main()
