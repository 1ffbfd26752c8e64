// Reads what an ONNX file says about itself: `metadata_props`, field 14 of the message, each a key and a value.

const PROPERTIES = 14;

export function metadata(bytes) {
  const text = new TextDecoder();
  const found = {};
  for (const [field, entry] of fields(bytes)) {
    if (field !== PROPERTIES) continue;
    const parts = new Map(fields(entry));
    found[text.decode(parts.get(1))] = JSON.parse(text.decode(parts.get(2)));
  }
  return found;
}

// Numbers and contents of the fields of a protocol buffer; nested messages and texts as their bytes.
function* fields(bytes) {
  let place = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[place];
      place += 1;
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (place < bytes.length) {
    const tag = varint();
    const [field, kind] = [Math.floor(tag / 8), tag % 8];
    if (kind === 0) yield [field, varint()];
    else if (kind === 2) {
      const length = varint();
      place += length;
      yield [field, bytes.subarray(place - length, place)];
    } else place += kind === 1 ? 8 : 4;
  }
}
