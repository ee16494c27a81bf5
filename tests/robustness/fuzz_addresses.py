"""Ask whether many addresses are public, in all spellings, and count those that should not be."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter

from slime_vlm.errors import MediaError
from slime_vlm.media.download import public_addresses

# Blocks of the special-purpose registries of IANA that no download may reach, and hosts of clouds.
INSIDE = tuple(
    ipaddress.ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
        *("::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8", "2001:db8::/32", "3fff::/20", "5f00::/16"),
    )
)


def try_addresses(count: int, seed: int = 0) -> Counter[str]:
    """Draw addresses inside of the blocks, in several spellings, and ask for them.

    Args:
        count: How many.
        seed: Seed of the draw.

    Returns:
        Counts of "tried", "refused", "reached" (each a failure) and "foreign exception".
    """
    counts: Counter[str] = Counter(tried=0, refused=0, reached=0)
    chance = random.Random(seed)
    for _ in range(count):
        host = _spelling(chance)
        counts["tried"] += 1
        try:
            public_addresses(host, 80)
            counts["reached"] += 1
            counts[f"reached: {host}"] += 1
        except MediaError:
            counts["refused"] += 1
        except Exception as error:
            counts["foreign exception"] += 1
            counts[f"{type(error).__name__}: {error} ({host})"] += 1
    return counts


def _spelling(chance: random.Random) -> str:
    block = chance.choice(INSIDE)
    number = int(block.network_address) + chance.randrange(block.num_addresses)
    address = ipaddress.ip_address(number) if block.version == 4 else ipaddress.IPv6Address(number)
    if isinstance(address, ipaddress.IPv6Address):
        return chance.choice((address.compressed, address.exploded))
    parts = [int(part) for part in str(address).split(".")]
    return chance.choice(
        (
            str(address),
            str(number),
            hex(number),
            oct(number).replace("o", ""),
            ".".join(f"0{part:o}" for part in parts),
            ".".join(map(hex, parts)),
            f"{parts[0]}.{number & 0xFFFFFF}",
            f"::ffff:{address}",
            f"::{address}",
            f"64:ff9b::{address}",
            f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        )
    )
