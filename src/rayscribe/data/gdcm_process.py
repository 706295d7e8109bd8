"""Decodes one JPEG frame with GDCM in a process of its own, because a damaged frame crashes GDCM's process.

Arguments: transfer syntax, columns, rows, bits allocated, bits stored. Standard input: the frame. Standard output: its pixels.
"""

import sys

import gdcm


def pixels(frame: bytes, syntax: str, columns: int, rows: int, allocated: int, stored: int) -> bytes:
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, stored, stored - 1, 0))
    return image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM returns bytes as text


if __name__ == "__main__":
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    sys.stdout.buffer.write(pixels(sys.stdin.buffer.read(), sys.argv[1], *(int(number) for number in sys.argv[2:])))
