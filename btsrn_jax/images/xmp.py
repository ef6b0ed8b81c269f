"""XMP: what a packet says of the picture around it, and what must not be copied."""

from collections.abc import Callable
from xml.dom import minidom

_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMLNS = "http://www.w3.org/2000/xmlns/"
# They describe further pictures, depth or video in the same file (Ultra HDR's gain map,
# motion photos, stereo), which an enlarged picture does not have. A viewer that
# believes them would misread it.
_EMBEDDED = (
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.adobe.com/xmp/note/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.apple.com/pixeldatainfo/",
    "http://ns.google.com/photos/dd/",
    "http://ns.google.com/photos/1.0/",
)
_WIDTHS = {(_TIFF, "ImageWidth"), (_EXIF, "PixelXDimension")}
_HEIGHTS = {(_TIFF, "ImageLength"), (_EXIF, "PixelYDimension")}
_ORIENTATION = (_TIFF, "Orientation")
_LARGEST = 16 * 2**20  # bytes that are parsed


def orientation(packet: bytes) -> int | None:
    """Returns the orientation that a packet tells, 1..8; None without.

    Raises:
      ValueError: it is no XMP. The XML parser raises other types.
    """
    found = []

    def look(namespace, name, value):
        if (namespace, name) == _ORIENTATION:
            found.append(int(value))
        return value

    _edited(packet, look)
    return found[0] if found and found[0] in range(1, 9) else None


def descriptive(packet: bytes) -> tuple[bytes, bool]:
    """Returns (packet, dropped): without what describes other parts of the same file.

    `dropped` is True if there was such.

    Raises:
      ValueError: as `orientation`.
    """

    dropped = []

    def without(namespace, name, value):
        # What has not its place in one packet is named where that is found missing.
        if _is_embedded(namespace) and namespace != "http://ns.adobe.com/xmp/note/":
            dropped.append(name)
        return None if _is_embedded(namespace) or name == "Thumbnails" else value

    return _edited(packet, without), bool(dropped)


def with_size(packet: bytes | None, h: int, w: int) -> bytes | None:
    """Returns the packet with its size set to (w, h) and its orientation to 1.

    A panorama's size is scaled as its width is. Properties that the packet lacks are
    not added. None stays None.
    """
    if not packet:
        return None
    width = []

    def look(namespace, name, value):
        if (namespace, name) == (_PANORAMA, "CroppedAreaImageWidthPixels"):
            width.append(float(value))
        return value

    _edited(packet, look)

    def update(namespace, name, value):
        if (namespace, name) in _WIDTHS:
            return str(w)
        if (namespace, name) in _HEIGHTS:
            return str(h)
        if (namespace, name) == _ORIENTATION:
            return "1"
        if namespace == _PANORAMA and name.endswith("Pixels") and width and width[0]:
            return str(round(float(value) * w / width[0]))
        return value

    return _edited(packet, update)


def _is_embedded(namespace):
    return namespace.startswith(_EMBEDDED) and not namespace.startswith(_PANORAMA)


def _edited(packet: bytes, change: Callable[[str, str, str], str | None]) -> bytes:
    """Returns a packet with each property as `change` has it.

    Args:
      packet: XMP; it comes back as it is, byte for byte, if nothing changes, and else
        as UTF-8.
      change: change(namespace, name, value) -> the new value, None to drop the
        property. The value of a property that has parts is "0".
    """
    if len(packet) > _LARGEST or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        raise ValueError("no XMP")
    wide = packet[:4].find(b"\0") >= 0 or packet[:2] in (b"\xff\xfe", b"\xfe\xff")
    if wide:  # UTF-16: "<" is one byte of two
        big = packet[:1] in (b"\0", b"\xfe")
        packet = packet.decode("utf-16-be" if big else "utf-16-le").encode()
    packet = packet.removeprefix(b"\xef\xbb\xbf")
    document = minidom.parseString(packet.strip(b"\0 \t\r\n"))
    descriptions = document.getElementsByTagNameNS(_RDF, "Description")
    changed = False
    for node in descriptions:
        for item in list(node.attributes.values()):
            if item.namespaceURI in (None, _XMLNS, _RDF):
                continue
            value = change(item.namespaceURI, item.localName, item.value)
            changed |= value != item.value
            if value is None:
                node.removeAttributeNode(item)
            else:
                item.value = value
        for item in list(node.childNodes):
            if item.nodeType != item.ELEMENT_NODE or not item.namespaceURI:
                continue
            plain = [child.nodeType for child in item.childNodes] == [item.TEXT_NODE]
            old = item.firstChild.data if plain else "0"
            value = change(item.namespaceURI, item.localName, old)
            changed |= value != old
            if value is None:
                node.removeChild(item)
            elif plain:
                item.firstChild.data = value
    if not changed:
        return packet
    for node in document.getElementsByTagName("*"):  # names of what is gone
        for item in list((node.attributes or {}).values()):
            if item.namespaceURI == _XMLNS and _is_embedded(item.value):
                node.removeAttributeNode(item)
    return "".join(node.toxml() for node in document.childNodes).encode()
