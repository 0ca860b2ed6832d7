package jwt

// Encode signs any header and payload.
var Encode = encode
