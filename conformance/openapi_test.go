package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOpenAPI has two validators judge the OpenAPI document.
func TestOpenAPI(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: installs npm packages and runs node, which takes a minute on a fresh machine")
	}
	t.Parallel()
	js := installClient(t)
	script, err := os.ReadFile(filepath.Join("js", "openapi.mjs"))
	if err == nil {
		err = os.WriteFile(filepath.Join(js, "openapi.mjs"), script, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	document := filepath.Join(t.TempDir(), "openapi.json")
	cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/refserver", "openapi",
		"--config", filepath.Join("conformance", "fixture", "config.yaml"), "--data-dir", filepath.Join(t.TempDir(), "none"), "--out", document)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("refserver openapi: %v\n%s", err, out)
	}
	url := serveFixture(t, freePort(t))
	runScript(t, js, "openapi.mjs", "BEDPLATE_URL="+url, "OPENAPI_FILE="+document)
}
