"""Files that a program writes: names that stay in their folder."""
import hashlib
from urllib.parse import quote

LONGEST = 150                # characters of a name; file systems take 255 bytes, and an ending may follow


def safe_name(text):
    """Any text, as a category's or a video's name out of data  ->  the name of one file or folder

    Letters and digits of ASCII, "_", "-", "~", "." and spaces stay, all else becomes %XX, so that the name never leaves
    its folder. Two texts never share a name: what is too long ends with "%-" and a digest, as no other name does.
    """
    name = quote(text, safe=" ", errors="surrogatepass")
    if name[:1] in (".", " "):
        name = f"%{ord(name[0]):02X}{name[1:]}"                   # hidden, "..", or trimmed by somebody
    if name[-1:] in (".", " "):
        name = f"{name[:-1]}%{ord(name[-1]):02X}"                 # Windows drops them
    if len(name) > LONGEST:
        return f"{name[:LONGEST - 34]}%-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return name or "%"
