package password

import (
	_ "embed"
	"strings"
)

// common holds the 10,000 most common passwords of at least 8 bytes, in lower case, one a line,
// sorted by bytes. They are the first so many of the password frequency list in
// @zxcvbn-ts/language-common 4.1.3, under the MIT licence in common.LICENSE.
//
//go:embed common.txt
var common string

// isCommon looks for password, in lower case, by bisecting the text: nothing is built for it, and
// only the pages that are read are loaded.
func isCommon(password string) bool {
	lo, hi := 0, len(common) // both at the beginning of a line
	for lo < hi {
		mid := lo + (hi-lo)/2
		start := lo + strings.LastIndexByte(common[lo:mid], '\n') + 1
		line, _, _ := strings.Cut(common[start:hi], "\n")
		switch strings.Compare(line, password) {
		case 0:
			return true
		case -1:
			lo = start + len(line) + 1
		default:
			hi = start
		}
	}
	return false
}
