package storetest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/benbjohnson/litestream/abs"

	_ "github.com/bedplate/bedplate/backup/abs"
	"github.com/bedplate/bedplate/backup/internal/abslease"
	"github.com/bedplate/bedplate/backup/internal/replicator"
)

func TestABS(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: installs npm packages, which takes half a minute")
	}
	t.Parallel()
	a := newAzurite(t)
	t.Run("key", func(t *testing.T) {
		t.Parallel()
		testStore(t, a.newContainer)
	})
	t.Run("lease", func(t *testing.T) {
		t.Parallel()
		testLease(t, a.newContainer(t))
	})
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		withToken := func(t *testing.T) *store { return a.restrict(t, a.newContainer(t)) }
		t.Run("killed", func(t *testing.T) { testKilled(t, withToken(t)) })
		t.Run("lease", func(t *testing.T) { testLease(t, withToken(t)) })
	})
}

// The variables by which Litestream's client finds its credentials.
const (
	keyVariable   = "LITESTREAM_AZURE_ACCOUNT_KEY"
	tokenVariable = "LITESTREAM_AZURE_SAS_TOKEN"
)

const account = "bedplate"

// An azurite is a running Azurite.
type azurite struct {
	address string
	key     string
	client  *azblob.Client
}

// newAzurite installs Azurite and starts it until the test ends.
func newAzurite(t *testing.T) *azurite {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join("azurite", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}

	var key [64]byte
	_, _ = rand.Read(key[:]) // never fails
	a := &azurite{key: base64.StdEncoding.EncodeToString(key[:])}
	server := exec.CommandContext(t.Context(), "node", "node_modules/azurite/dist/src/blob/main.js",
		"--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck")
	server.Dir = dir
	server.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+account+":"+a.key)
	server.Stderr = logFile(t)
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	listening := regexp.MustCompile(`successfully listens on http://(\S+)`)
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
		_ = server.Wait() // killed
	})
	select {
	case a.address = <-address:
	case <-ended:
		t.Fatal("Azurite does not start")
	case <-time.After(patience):
		t.Fatal("Azurite does not tell where it listens")
	}
	credential, err := azblob.NewSharedKeyCredential(account, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.client, err = azblob.NewClientWithSharedKeyCredential("http://"+a.address+"/"+account, credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newContainer makes a container, which is a store by itself.
func (a *azurite) newContainer(t *testing.T) *store {
	t.Helper()
	var number [8]byte
	_, _ = rand.Read(number[:]) // never fails
	name := fmt.Sprintf("c%x", number)
	if _, err := a.client.CreateContainer(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
	r := newRelay(t)
	r.lead(a.address)
	s := &store{
		relay: r, url: fmt.Sprintf("abs://%s@%s/%%s?endpoint=http://%s/%s", account, name, r.address(), account),
		credentials: map[string]string{keyVariable: a.key}, objects: absObjects{a.client, name},
	}
	s.leaser = func(t *testing.T, prefix, owner string, ttl time.Duration) replicator.Leaser {
		t.Helper()
		c := abs.NewReplicaClient()
		c.AccountName, c.Bucket, c.Path, c.Endpoint = account, name, prefix, "http://"+r.address()+"/"+account
		c.AccountKey, c.SASToken = s.credentials[keyVariable], s.credentials[tokenVariable]
		l, err := abslease.New(c, owner, ttl)
		if err != nil {
			t.Fatal(err)
		}
		return l.(replicator.Leaser)
	}
	return s
}

// restrict gives a store no more rights than a replica needs.
func (a *azurite) restrict(t *testing.T, s *store) *store {
	t.Helper()
	credential, err := azblob.NewSharedKeyCredential(account, a.key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := sas.BlobSignatureValues{
		Protocol: sas.ProtocolHTTPSandHTTP, ExpiryTime: time.Now().UTC().Add(24 * time.Hour), ContainerName: s.objects.(absObjects).container,
		Permissions: (&sas.ContainerPermissions{Read: true, Write: true, Create: true, Delete: true, List: true}).String(),
	}.SignWithSharedKey(credential)
	if err != nil {
		t.Fatal(err)
	}
	s.credentials = map[string]string{tokenVariable: token.Encode()}
	return s
}

type absObjects struct {
	client    *azblob.Client
	container string
}

func (o absObjects) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	pages := o.client.NewListBlobsFlatPager(o.container, &container.ListBlobsFlatOptions{Prefix: &prefix})
	for pages.More() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Segment.BlobItems {
			keys = append(keys, *item.Name)
		}
	}
	return keys
}

func (o absObjects) read(t *testing.T, key string) []byte {
	t.Helper()
	answer, err := o.client.DownloadStream(t.Context(), o.container, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(answer.Body); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

func (o absObjects) write(t *testing.T, key string, data []byte) {
	t.Helper()
	if _, err := o.client.UploadBuffer(t.Context(), o.container, key, data, nil); err != nil {
		t.Fatal(err)
	}
}

func (o absObjects) remove(t *testing.T, key string) {
	t.Helper()
	if _, err := o.client.DeleteBlob(t.Context(), o.container, key, nil); err != nil {
		t.Fatal(err)
	}
}
