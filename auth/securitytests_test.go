package auth_test

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	listedTest   = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	declaredTest = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
	listedRow    = regexp.MustCompile(`(?m)^\| ([A-Z][0-9]+) \| (.*) \|$`)
)

// TestSecurityTestsAreListed holds docs/security-tests.md to the sources: what
// it names is there, and no row of the attacks on sign-in, certificates and backups is missing
// or empty.
func TestSecurityTestsAreListed(t *testing.T) {
	t.Parallel()
	root := os.DirFS("..")
	page, err := fs.ReadFile(root, "docs/security-tests.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	err = fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := fs.ReadFile(root, path)
		for _, m := range declaredTest.FindAllSubmatch(source, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range listedTest.FindAllSubmatch(page, -1) {
		if !declared[string(m[1])] {
			t.Errorf("docs/security-tests.md names %s, which is not there", m[1])
		}
	}

	rows := map[string]string{}
	for _, m := range listedRow.FindAllStringSubmatch(string(page), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("docs/security-tests.md has row %s twice", m[1])
		}
		rows[m[1]] = m[2]
	}
	wanted := []string{"I5", "I6", "I7", "I8"}
	for letter, last := range map[string]int{"A": 19, "B": 14, "C": 14, "D": 18, "E": 13, "G": 6, "J": 9} {
		for n := 1; n <= last; n++ {
			wanted = append(wanted, fmt.Sprint(letter, n))
		}
	}
	for _, id := range wanted {
		if !listedTest.MatchString(rows[id]) {
			t.Errorf("docs/security-tests.md has no test in row %s", id)
		}
	}
}
