#include "crypto/openssl.h"

#include <dlfcn.h>

#include <type_traits>

namespace vioctl::crypto {
namespace {

// Looks functions up until one is missing.
class Lookup {
 public:
  template <typename F>
  Lookup& operator()(F& function, const char* name) {
    if (complete_) function = reinterpret_cast<F>(::dlsym(RTLD_DEFAULT, name));
    if (!function) complete_ = false;
    return *this;
  }
  bool complete() const { return complete_; }

 private:
  bool complete_ = true;
};

}  // namespace

const BigNumbers* BigNumbers::Get() {
  static BigNumbers f{};
  static const bool complete = [] {
    Lookup look;
    return look(f.contextNew, "BN_CTX_new")(f.contextFree, "BN_CTX_free")(f.fresh, "BN_new")(f.fromBytes, "BN_bin2bn")(
               f.toBytes, "BN_bn2binpad")(f.clearFree, "BN_clear_free")(f.setFlags, "BN_set_flags")(
               f.modExp, "BN_mod_exp_mont_consttime")
        .complete();
  }();
  return complete ? &f : nullptr;
}

const Ssl* Ssl::Get() {
  static Ssl f{};
  static const bool complete = [] {
    Lookup look;
    look(f.serverMethod, "TLS_server_method");
    look(f.clientMethod, "TLS_client_method");
    look(f.contextNew, "SSL_CTX_new");
    look(f.contextControl, "SSL_CTX_ctrl");
    look(f.contextOptions, "SSL_CTX_set_options");
    look(f.contextSuites, "SSL_CTX_set_ciphersuites");
    look(f.contextTickets, "SSL_CTX_set_num_tickets");
    look(f.contextHello, "SSL_CTX_set_client_hello_cb");
    look(f.contextFind, "SSL_CTX_set_psk_find_session_callback");
    look(f.contextUse, "SSL_CTX_set_psk_use_session_callback");
    look(f.create, "SSL_new");
    look(f.destroy, "SSL_free");
    look(f.acceptState, "SSL_set_accept_state");
    look(f.connectState, "SSL_set_connect_state");
    look(f.setExData, "SSL_set_ex_data");
    look(f.getExData, "SSL_get_ex_data");
    look(f.setSuites, "SSL_set_ciphersuites");
    look(f.helloExtension, "SSL_client_hello_get0_ext");
    look(f.handshake, "SSL_do_handshake");
    look(f.reused, "SSL_session_reused");
    look(f.read, "SSL_read_ex");
    look(f.write, "SSL_write_ex");
    look(f.shutdown, "SSL_shutdown");
    look(f.getError, "SSL_get_error");
    look(f.cipherFind, "SSL_CIPHER_find");
    look(f.session, "SSL_get_session");
    look(f.sessionNew, "SSL_SESSION_new");
    look(f.sessionFree, "SSL_SESSION_free");
    look(f.sessionKey, "SSL_SESSION_set1_master_key");
    look(f.sessionCipher, "SSL_SESSION_set_cipher");
    look(f.sessionVersion, "SSL_SESSION_set_protocol_version");
    look(f.setBio, "SSL_set_bio");
    look(f.bioMethodNew, "BIO_meth_new");
    look(f.bioNewIndex, "BIO_get_new_index");
    look(f.bioMethodWrite, "BIO_meth_set_write_ex");
    look(f.bioMethodRead, "BIO_meth_set_read_ex");
    look(f.bioMethodControl, "BIO_meth_set_ctrl");
    look(f.bioNew, "BIO_new");
    look(f.bioSetData, "BIO_set_data");
    look(f.bioData, "BIO_get_data");
    look(f.bioSetInit, "BIO_set_init");
    look(f.bioSetFlags, "BIO_set_flags");
    look(f.bioClearFlags, "BIO_clear_flags");
    look(f.peekError, "ERR_peek_error");
    look(f.reasonText, "ERR_reason_error_string");
    look(f.clearErrors, "ERR_clear_error");
    return look.complete();
  }();
  return complete ? &f : nullptr;
}

}  // namespace vioctl::crypto
