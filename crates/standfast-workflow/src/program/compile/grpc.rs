//! Methods of gRPC services, as their `.proto` files describe them. These are compiled here, without `protoc`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prost_reflect::MethodDescriptor;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use standfast_model::workflow as language;
use standfast_model::workflow::Uri;

use super::Building;
use crate::program::resources::{Resources, address_of, resolve};
use crate::program::{Grpc, Step};

/// The port at which a service is reached over TLS.
const TLS_PORT: u16 = 443;

impl Building<'_> {
    /// `None` when it cannot be called, or its files are not at hand yet, and that was noted.
    pub(super) fn grpc(&mut self, call: &language::Grpc, pointer: &str) -> Option<Step> {
        // That it is at hand; it is read again with what it imports.
        self.resource(&call.proto, pointer)?;
        let Uri::Template(at) = &call.proto.endpoint.uri else { return None };
        let method = self.method(&address_of(at), call, pointer)?;
        let Some(server) = server_of(call) else {
            self.refuse(pointer, format!("the service's host `{}`", call.host));
            return None;
        };
        let access = self.access(call.authentication.as_ref(), pointer);
        let arguments = self.optional(call.arguments.as_ref());
        Some(Step::Grpc(Box::new(Grpc { server, method, access, arguments })))
    }

    fn method(&mut self, at: &str, call: &language::Grpc, pointer: &str) -> Option<MethodDescriptor> {
        let missing: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let mut files = ChainFileResolver::new();
        files.add(GoogleFileResolver::new());
        files.add(AtHand {
            at: at.to_owned(),
            resources: self.resources.clone(),
            missing: Arc::clone(&missing),
        });
        let mut compiler = protox::Compiler::with_file_resolver(files);
        let root = at.rsplit('/').next().unwrap_or(at);
        if let Err(why) = compiler.open_file(root).map(drop) {
            let missing = std::mem::take(&mut *missing.lock().unwrap_or_else(PoisonError::into_inner));
            let is_allowed = |address: &String| !(self.is_from_network && address.starts_with("file://"));
            if missing.is_empty() || !missing.iter().all(is_allowed) {
                // Its other form lacks the line.
                self.refuse(pointer, format!("this file ({why:?})"));
            }
            self.missing.extend(missing);
            return None;
        }
        let pool = compiler.descriptor_pool();
        let service = pool.get_service_by_name(&call.service).or_else(|| {
            // The package may be left out when one service has the name.
            let mut named = pool.services().filter(|service| service.name() == call.service);
            named.next().filter(|_| named.next().is_none())
        });
        let Some(service) = service else {
            let known: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
            self.refuse(pointer, format!("the service `{}` (known are: {})", call.service, known.join(", ")));
            return None;
        };
        let found = service.methods().find(|method| method.name() == call.method);
        if found.is_none() {
            let known: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
            self.refuse(pointer, format!("the method `{}` (known are: {})", call.method, known.join(", ")));
        }
        found
    }
}

/// Where a service is. One at the port of TLS is reached over TLS, or one whose host says so.
fn server_of(call: &language::Grpc) -> Option<String> {
    let (scheme, host) = call.host.split_once("://").unwrap_or(("", &call.host));
    let scheme = match (scheme, call.port) {
        ("https", _) | ("", Some(TLS_PORT)) => "https",
        ("http" | "", _) => "http",
        _ => return None,
    };
    let server = match call.port {
        Some(port) => format!("{scheme}://{}:{port}", host.trim_end_matches('/')),
        None => format!("{scheme}://{}", host.trim_end_matches('/')),
    };
    let uri: http::Uri = server.parse().ok()?;
    (uri.path() == "/" && uri.query().is_none() && !host.contains('@')).then_some(server)
}

/// Files that are at hand, by the names that they have in imports.
struct AtHand {
    /// Where the first of them is.
    at: String,
    resources: Resources,
    missing: Arc<Mutex<BTreeSet<String>>>,
}

impl FileResolver for AtHand {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let address = resolve(&self.at, name);
        match self.resources.get(&address) {
            Some(text) => File::from_source(name, text),
            None => {
                self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
                Err(protox::Error::file_not_found(name))
            }
        }
    }
}
