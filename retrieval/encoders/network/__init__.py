"""The timm network of an encoder, with torch: made, given a head, checked against its weights, split and exported."""
