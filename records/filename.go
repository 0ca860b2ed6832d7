package records

import (
	"crypto/rand"
	"mime"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a file's metadata, in bytes.
const (
	maxOriginal    = 255
	maxFilename    = 128
	maxExtension   = 16 // with the dot
	maxContentType = 128
)

// cleanName returns the last part of the name that a client gave a file,
// without what could make it look like another one, or "".
func cleanName(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	s = s[strings.LastIndexAny(s, `/\`)+1:]
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return -1
		}
		return r
	}, s)
	if len(s) > maxOriginal {
		stem, ext := splitName(s)
		s = cut(stem, maxOriginal-len(ext)) + ext
	}
	if strings.Trim(s, ". ") == "" {
		return ""
	}
	return s
}

// storedName returns a unique name made of letters, digits, dashes, underscores
// and dots that resembles the original one.
func storedName(original string) string {
	suffix := strings.ToLower(rand.Text()[:10])
	s := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z' {
			return r
		}
		return -1
	}, original)
	stem, ext := splitName(strings.TrimLeft(s, "."))
	if stem == "" && ext == "" {
		return suffix
	}
	return cut(stem, maxFilename-1-len(suffix)-len(ext)) + "_" + suffix + ext
}

// splitName splits off the extension, with its dot, if it is one: of some
// length and behind something else.
func splitName(s string) (stem, ext string) {
	i := strings.LastIndexByte(s, '.')
	if i <= 0 || i == len(s)-1 || len(s)-i > maxExtension {
		return strings.TrimRight(s, "."), ""
	}
	return s[:i], s[i:]
}

// cut returns at most n bytes of s, and whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// cleanMediaType returns s if it is a media type (RFC 9110 8.3.1), or "".
func cleanMediaType(s string) string {
	if len(s) > maxContentType {
		return ""
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return ""
		}
	}
	media, _, err := mime.ParseMediaType(s)
	if err != nil || strings.Count(media, "/") != 1 {
		return ""
	}
	return s
}

// sniff returns the media type that the content has the look of, without
// parameters, or "". Text is text to its end, in UTF-8 or behind a mark of
// UTF-16.
func sniff(content []byte) string {
	media, params, _ := strings.Cut(http.DetectContentType(content), ";")
	switch {
	case media == "application/octet-stream":
		return ""
	case media == "text/plain" && !strings.Contains(params, "utf-16") && !utf8.Valid(content):
		return ""
	}
	return media
}

// runs reports whether a browser may take content of a media type into a page
// as a script or a style sheet (https://mimesniff.spec.whatwg.org/#javascript-mime-type).
func runs(media string) bool {
	media, _, _ = mime.ParseMediaType(media)
	kind, name, _ := strings.Cut(media, "/")
	switch name = strings.TrimPrefix(name, "x-"); {
	case kind != "text" && kind != "application":
		return false
	case name == "javascript", name == "ecmascript", strings.HasPrefix(name, "javascript1."):
		return true
	}
	return kind == "text" && (name == "jscript" || name == "livescript" || name == "css")
}
