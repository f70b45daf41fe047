//! Calls by protocols that stand above HTTP.

use serde_json::Value;
use standfast_model::workflow as language;
use standfast_model::workflow::{
    AgentMethod, AsyncOperation, Consume, McpMethod, McpTransport, Message, Resource, Uri,
};

use super::Building;
use crate::program::asyncapi::Direction;
use crate::program::{
    Access, Address, Agent, Enough, Events, Listen, Mcp, OpenApi, Publish, Reaches, Read, Step, Subscription,
    Wire, asyncapi, openapi, resources,
};

impl Building<'_> {
    /// `None` when it cannot be called, or its document is not at hand yet, and that was noted.
    pub(super) fn open_api(&mut self, call: &language::OpenApi, pointer: &str) -> Option<Step> {
        let document = self.data(&call.document, pointer)?;
        let at = match &call.document.endpoint.uri {
            Uri::Template(text) => resources::address_of(text),
            Uri::Expression(_) => String::new(),
        };
        let operation = match openapi::find(&document, &call.operation, &at) {
            Ok(operation) => operation,
            Err(why) => {
                self.refuse(pointer, format!("the operation `{}` of its document ({why})", call.operation));
                return None;
            }
        };
        Some(Step::OpenApi(Box::new(OpenApi {
            operation,
            parameters: self.optional(call.parameters.as_ref()),
            access: self.access(call.authentication.as_ref(), pointer),
            output: call.output,
            redirect: call.redirect,
        })))
    }

    /// As [`Building::open_api`].
    pub(super) fn async_api(&mut self, call: &language::AsyncApi, pointer: &str) -> Option<Step> {
        let document = self.data(&call.document, pointer)?;
        let (operation, channel) = match &call.operation {
            AsyncOperation::Operation(name) => (Some(name.as_str()), None),
            AsyncOperation::Channel(name) => (None, Some(name.as_str())),
        };
        let server = call.server.as_ref().map(|(name, _)| name.as_str());
        let direction = match call.message {
            Message::Publish { .. } => Direction::Send,
            Message::Subscribe(_) => Direction::Receive,
        };
        let protocol = call.protocol.as_deref();
        let wanted = asyncapi::Wanted { direction, operation, channel, server, protocol };
        let channel = match asyncapi::find(&document, &wanted) {
            Ok(channel) => channel,
            Err(why) => {
                self.refuse(pointer, format!("the AsyncAPI call ({why})"));
                return None;
            }
        };
        let variables = call.server.as_ref().and_then(|(_, variables)| variables.as_ref());
        let variables = self.optional(variables);
        let access = self.access(call.authentication.as_ref(), pointer);
        if matches!(channel.wire, Wire::Mqtt { .. }) && !matches!(access, None | Some(Access::Basic { .. })) {
            self.refuse(pointer, "MQTT with another authentication than `basic`");
            return None;
        }
        Some(match &call.message {
            Message::Publish { payload, headers } => {
                let (payload, headers) = (self.optional(payload.as_ref()), self.optional(headers.as_ref()));
                Step::Publish(Box::new(Publish { channel, variables, payload, headers, access }))
            }
            Message::Subscribe(subscription) => {
                let filter = subscription.filter.as_ref().map(|filter| self.filter(filter));
                let enough = match &subscription.consume {
                    Consume::Amount(amount) => Enough::Amount(*amount),
                    Consume::While(condition) => Enough::While(self.filter(condition)),
                    Consume::Until(condition) => Enough::Until(self.filter(condition)),
                };
                let period = subscription.period.as_ref().map(|period| self.length(period));
                let each = subscription.for_each.as_ref();
                let each = each.map(|each| self.for_each(each, pointer, "with/subscription/foreach/do"));
                let from = Subscription { channel, variables, access, filter, enough, period };
                let to = Events::Any { patterns: Vec::new(), until: None };
                Step::Listen(Box::new(Listen { to, read: Read::Raw, each, channel: Some(Box::new(from)) }))
            }
        })
    }

    /// As [`Building::open_api`].
    pub(super) fn agent(&mut self, call: &language::A2a, pointer: &str) -> Option<Step> {
        let (address, access) = match (&call.agent_card, &call.server) {
            (Some(card), _) => {
                let access = self.access(card.endpoint.authentication.as_ref(), pointer);
                (self.address_of_agent(card, pointer)?, access)
            }
            (None, Some(server)) => self.endpoint(server, pointer),
            (None, None) => return None, // The document was checked.
        };
        let method = agent_word(call.method);
        let streams = matches!(call.method, AgentMethod::MessageStream | AgentMethod::TasksResubscribe);
        let sends = matches!(call.method, AgentMethod::MessageStream | AgentMethod::MessageSend);
        let parameters = self.optional(call.parameters.as_ref());
        Some(Step::Agent(Box::new(Agent { address, access, method, parameters, sends, streams })))
    }

    /// Where an agent is, by its card. What lets a workflow in is for the agent: cards are for everybody.
    fn address_of_agent(&mut self, card: &Resource, pointer: &str) -> Option<Address> {
        let mut endpoint = card.endpoint.clone();
        endpoint.authentication = None;
        let card = self.data(&Resource { name: card.name.clone(), endpoint }, pointer)?;
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let is_ours = |transport: Option<String>| {
            transport.is_none_or(|transport| transport.eq_ignore_ascii_case("JSONRPC"))
        };
        let first = text(&card, "url").filter(|_| is_ours(text(&card, "preferredTransport")));
        let others = ["additionalInterfaces", "supportedInterfaces"];
        let others = others.iter().filter_map(|name| card.get(name)?.as_array()).flatten();
        let mut others = others.filter_map(|other| {
            let binding = text(other, "transport").or_else(|| text(other, "protocolBinding"));
            text(other, "url").filter(|_| binding.is_some() && is_ours(binding))
        });
        let found = first.or_else(|| others.next());
        if found.is_none() {
            self.refuse(pointer, "an agent whose card says no address (`url`) for JSON-RPC");
        }
        // Its braces, if it has any, are no template: the document did not write it.
        found.map(|address| Address::Template(address.replace('{', "%7B").replace('}', "%7D")))
    }

    pub(super) fn mcp(&mut self, call: &language::Mcp, pointer: &str) -> Step {
        let reaches = match &call.transport {
            McpTransport::Http { endpoint, headers } => {
                let (address, access) = self.endpoint(endpoint, pointer);
                Reaches::Http { address, access, headers: self.optional(headers.as_ref()) }
            }
            McpTransport::Stdio { command, arguments, environment } => Reaches::Stdio {
                command: self.form(command),
                arguments: self.forms(arguments),
                environment: self.optional(environment.as_ref()),
            },
        };
        let ours = || ("standfast".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Step::Mcp(Box::new(Mcp {
            version: call.version.clone(),
            client: call.client.clone().unwrap_or_else(ours),
            method: mcp_word(call.method),
            parameters: self.optional(call.parameters.as_ref()),
            timeout: call.timeout.as_ref().map(|timeout| self.length(timeout)),
            reaches,
        }))
    }
}

fn agent_word(method: AgentMethod) -> &'static str {
    match method {
        AgentMethod::MessageSend => "message/send",
        AgentMethod::MessageStream => "message/stream",
        AgentMethod::TasksGet => "tasks/get",
        AgentMethod::TasksList => "tasks/list",
        AgentMethod::TasksCancel => "tasks/cancel",
        AgentMethod::TasksResubscribe => "tasks/resubscribe",
        AgentMethod::PushConfigSet => "tasks/pushNotificationConfig/set",
        AgentMethod::PushConfigGet => "tasks/pushNotificationConfig/get",
        AgentMethod::PushConfigList => "tasks/pushNotificationConfig/list",
        AgentMethod::PushConfigDelete => "tasks/pushNotificationConfig/delete",
        AgentMethod::ExtendedCard => "agent/getAuthenticatedExtendedCard",
    }
}

fn mcp_word(method: McpMethod) -> &'static str {
    match method {
        McpMethod::ToolsList => "tools/list",
        McpMethod::ToolsCall => "tools/call",
        McpMethod::PromptsList => "prompts/list",
        McpMethod::PromptsGet => "prompts/get",
        McpMethod::ResourcesList => "resources/list",
        McpMethod::ResourcesRead => "resources/read",
        McpMethod::TemplatesList => "resources/templates/list",
    }
}
