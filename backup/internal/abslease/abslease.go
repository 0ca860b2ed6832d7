// Package abslease has the leases of replicas in Azure Blob Storage. A write is conditional on the
// ETag of the blob
// (https://learn.microsoft.com/en-us/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations).
// The leases that Azure itself gives on blobs are something else, and not used.
package abslease

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/benbjohnson/litestream"
	"github.com/benbjohnson/litestream/abs"

	"github.com/bedplate/bedplate/backup/internal/replicator"
)

// New returns a leaser for the replica of c, a [*abs.ReplicaClient], whose credentials are found as
// that finds them.
func New(c litestream.ReplicaClient, owner string, ttl time.Duration) (litestream.Leaser, error) {
	replica, ok := c.(*abs.ReplicaClient)
	if !ok {
		return nil, fmt.Errorf("no leases for a replica of type %s", c.Type())
	}
	return replicator.NewLeaser(abs.ReplicaClientType, &store{replica: replica}, owner, ttl), nil
}

type store struct {
	replica *abs.ReplicaClient

	mu   sync.Mutex
	blob *blockblob.Client // nil: has to be made
}

func (s *store) connect() (*blockblob.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blob != nil {
		return s.blob, nil
	}
	client, err := newClient(s.replica)
	if err != nil {
		return nil, err
	}
	container := client.ServiceClient().NewContainerClient(s.replica.Bucket)
	s.blob = container.NewBlockBlobClient(path.Join(s.replica.Path, replicator.LeaseObject))
	return s.blob, nil
}

// newClient makes a client as Litestream makes the one of the replica, which cannot be had.
func newClient(replica *abs.ReplicaClient) (*azblob.Client, error) {
	endpoint := replica.Endpoint
	if endpoint == "" {
		endpoint = fmt.Sprintf("https://%s.blob.core.windows.net", replica.AccountName)
	}
	options := &azblob.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry: policy.RetryOptions{MaxRetries: -1}, // whoever holds the lease tries again
	}}
	if token := cmp.Or(replica.SASToken, os.Getenv("LITESTREAM_AZURE_SAS_TOKEN")); token != "" {
		return azblob.NewClientWithNoCredential(endpoint+"?"+strings.TrimPrefix(token, "?"), options)
	}
	if key := cmp.Or(replica.AccountKey, os.Getenv("LITESTREAM_AZURE_ACCOUNT_KEY")); key != "" {
		credential, err := azblob.NewSharedKeyCredential(replica.AccountName, key)
		if err != nil {
			return nil, err
		}
		return azblob.NewClientWithSharedKeyCredential(endpoint, credential, options)
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, err
	}
	return azblob.NewClient(endpoint, credential, options)
}

func (s *store) Read(ctx context.Context) (text []byte, tag string, age time.Duration, err error) {
	client, err := s.connect()
	if err != nil {
		return nil, "", 0, err
	}
	answer, err := client.DownloadStream(ctx, nil)
	if bloberror.HasCode(err, bloberror.BlobNotFound) {
		return nil, "", 0, fs.ErrNotExist
	}
	if err != nil {
		return nil, "", 0, err
	}
	defer answer.Body.Close()
	text, err = io.ReadAll(io.LimitReader(answer.Body, replicator.MaxLease))
	if err != nil {
		return nil, "", 0, err
	}
	if answer.ETag == nil {
		return nil, "", 0, errors.New("the store does not tell the ETag of the lease")
	}
	if answer.Date != nil && answer.LastModified != nil {
		age = answer.Date.Sub(*answer.LastModified) - time.Second // both are whole seconds
	}
	return text, string(*answer.ETag), age, nil
}

func (s *store) Write(ctx context.Context, text []byte, tag string) (newTag string, err error) {
	client, err := s.connect()
	if err != nil {
		return "", err
	}
	condition, match, none := &blob.ModifiedAccessConditions{}, azcore.ETag(tag), azcore.ETagAny
	if tag == "" {
		condition.IfNoneMatch = &none
	} else {
		condition.IfMatch = &match
	}
	answer, err := client.Upload(ctx, streaming.NopCloser(bytes.NewReader(text)), &blockblob.UploadOptions{
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: condition},
	})
	if bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.BlobAlreadyExists, bloberror.BlobNotFound) {
		return "", litestream.ErrLeaseNotHeld
	}
	if err != nil {
		return "", err
	}
	if answer.ETag == nil {
		return "", errors.New("the store does not tell the ETag of the lease")
	}
	return string(*answer.ETag), nil
}
