/* TLS for the ground-truth server, built in with -DTRUTH_TLS (and -lssl -lcrypto): records are made and read in memory, so that the server still writes
 * and reads its sockets itself and its stamps mean what they mean without TLS. TRUTH_TLS names a PEM file with certificate and key. */
#pragma once
#ifdef TRUTH_TLS
#include <openssl/ssl.h>

static SSL_CTX *tls_context;

static void tls_start(void) {
    const char *pem = getenv("TRUTH_TLS");
    if (!pem) return;
    tls_context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_file(tls_context, pem, SSL_FILETYPE_PEM) != 1 || SSL_CTX_use_PrivateKey_file(tls_context, pem, SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "%s holds no certificate with its key\n", pem);
        exit(1);
    }
}

static SSL *tls_new(void) {
    if (!tls_context) return NULL;
    SSL *tls = SSL_new(tls_context);
    SSL_set_bio(tls, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(tls);
    return tls;
}

/* Records made so far, waiting to be written. */
static size_t tls_records(SSL *tls, const char **data) {
    char *at;
    size_t size = BIO_get_mem_data(SSL_get_wbio(tls), &at);
    *data = at;
    return size;
}

static void tls_written(SSL *tls) { (void)BIO_reset(SSL_get_wbio(tls)); }

static void tls_encrypt(SSL *tls, const char *data, size_t size) {
    if (size) SSL_write(tls, data, (int)size);
}

static void tls_receive(SSL *tls, const char *data, size_t size) { BIO_write(SSL_get_rbio(tls), data, (int)size); }

static int tls_decrypt(SSL *tls, char *into, size_t room) { return SSL_read(tls, into, (int)room); }

static void tls_free(SSL *tls) { SSL_free(tls); }
#else
typedef void SSL;
static void tls_start(void) {
    if (!getenv("TRUTH_TLS")) return;
    fprintf(stderr, "this truth server was built without TLS; build it with -DTRUTH_TLS -lssl -lcrypto\n");
    exit(1);
}
static SSL *tls_new(void) { return NULL; }
static size_t tls_records(SSL *tls, const char **data) { (void)tls; *data = NULL; return 0; }
static void tls_written(SSL *tls) { (void)tls; }
static void tls_encrypt(SSL *tls, const char *data, size_t size) { (void)tls; (void)data; (void)size; }
static void tls_receive(SSL *tls, const char *data, size_t size) { (void)tls; (void)data; (void)size; }
static int tls_decrypt(SSL *tls, char *into, size_t room) { (void)tls; (void)into; (void)room; return 0; }
static void tls_free(SSL *tls) { (void)tls; }
#endif
