//! Puts the server together: the one place that knows every part.

mod encryption;
mod federation;
mod finding;
mod membership;
mod operators;
mod receiving;
mod scrape;
mod sending;
mod serving;
mod testing;

use std::sync::Arc;

use parlour_actors::{Engine, EngineOptions, RoomLimits, presence::PresenceOptions};
use parlour_event::RoomVersion;
use parlour_storage::{StoreOptions, faults::Faults};

use self::federation::Network;
pub use self::scrape::{Looks, metrics_routes};
use crate::{
    client::{
        account,
        account_data::{self, AccountDataContext},
        accounts::Accounts,
        aliases::{self, AliasContext},
        capabilities::{self, CapabilitiesContext},
        context,
        create_room::{self, CreateRoomContext},
        cross_signing::{self, CrossSigningContext},
        deactivate::{self, DeactivateContext},
        delayed::{self, DelayedContext},
        devices::{self, DeviceContext},
        discovery::{self, DiscoveryContext},
        event,
        filters::{self, FilterContext},
        initial_sync::{self, InitialSyncContext},
        login::{self, LoginContext},
        login_tokens::{self, LoginTokenContext, LoginTokens},
        members,
        membership::{self as memberships, Members, MembershipContext},
        messages,
        notifications::{self, NotificationContext},
        password::{self, PasswordContext},
        passwords::Passwords,
        past::Past,
        presence::{self, PresenceContext},
        profile::{self, ProfileContext},
        push_rules,
        receipts::{self, ReceiptContext},
        redact, refresh,
        register::{self, RegisterContext},
        registration_tokens::RegistrationTokens,
        relations,
        search::{self, SearchContext},
        send::{self, SendContext},
        sessions::Sessions,
        state,
        state_write::{self, StateWriteContext},
        sync::{self, SyncContext},
        tags::{self, TagContext},
        third_party, third_party_ids,
        thread_subscriptions::{self, ThreadContext},
        threads, timestamp,
        typing::{self, TypingContext},
        uiaa::{self, Stages, Uiaa},
        upgrade::{self, UpgradeContext},
        user_directory::{self, UserDirectoryContext},
        voip::{self, VoipContext},
    },
    config::{Config, DataDir},
    federation::{
        acl::RoomGuard,
        receive::{history::History, inbox::Inbox},
    },
    http::Routes,
    memory::Overview,
    push::UnreadCounts,
    search::{Follower, TextIndex},
    server::{Boot, Service, StartError},
    view::{View, sync::Syncs},
};

/// Starts the actors and collects the endpoints. Runs inside the server's actix system.
///
/// # Errors
/// A part does not start.
pub async fn assemble(boot: Boot) -> Result<Service, StartError> {
    let faults = testing::faults(&boot);
    let engine = start_engine(&boot, faults.as_ref()).await?;
    match put_together(&boot, &engine, faults).await {
        Ok(service) => Ok(service),
        Err(error) => {
            // The data are free for the next try at once.
            engine.stop().await;
            Err(error)
        }
    }
}

async fn put_together(
    boot: &Boot,
    engine: &Engine,
    faults: Option<Faults>,
) -> Result<Service, StartError> {
    testing::check_seed(boot, engine).await?;
    let view = View::of(engine, boot.env.clock.clone());
    let counts = UnreadCounts::new(engine.users.clone());
    let network = Network::start(boot, engine)?;
    let profiles = Arc::new(profiles(boot, engine, &view, &network));
    let aliases = Arc::new(aliases(boot, engine, &view, &network));
    let published = finding::published_rooms(engine, &view);
    let guard = RoomGuard::new(view.clone());
    let members = membership::members(boot, engine, &view, &network);
    let inbox = receiving::inbox(boot, engine, &view, &guard, &network, &members)?;
    let accounts = accounts(boot, engine)?;
    let notices = operators::notices(boot, engine).await?;
    let kept = boot.config.memory.deliveries;
    let syncs = Arc::new(Syncs::new(view.clone(), engine, counts.clone(), kept));
    let memory = Overview {
        config: boot.config.memory,
        budget: boot.budget.clone(),
        engine: engine.clone(),
        syncs: syncs.clone(),
    };
    let looks = Looks {
        rooms: Some(engine.rooms.clone()),
        queues: Some(network.queues.clone()),
        memory: Some(memory),
    };
    let (test_routes, bulk) = testing::routes(boot, engine, &view, &accounts, faults)?;
    let routes = discovery_routes(boot)
        .and(test_routes)
        .and(account_routes(boot, engine, &view, &network, &accounts))
        .and(operators::admin_routes(boot, engine, &view, accounts, notices))
        .and(profile::routes(profiles.clone()))
        .and(aliases::routes(aliases.clone()))
        .and(people_routes(boot, engine, &view))
        .and(reading_routes(engine, &view, inbox.as_ref().map(Inbox::history)))
        .and(membership::routes(boot, engine, &network, &members, &guard))
        .and(writing_routes(boot, engine, members, aliases.clone()))
        .and(finding::routes(boot, engine, &view, &network, published.clone(), aliases.clone()))
        .and(notice_routes(engine, &view, &counts))
        .and(encryption::routes(boot, engine, &view, &network)?)
        .and(search_routes(boot, engine, &view)?)
        .and(operators::moderation_routes(boot, engine, &view))
        .and(network.routes(boot, engine, profiles, aliases))
        .and(serving::routes(boot, engine, &view, &guard, published))
        .and(receiving::routes(&inbox))
        .and(sync::routes(Arc::new(SyncContext::new(boot, engine, view, syncs))))
        .and(metrics_routes(boot.metrics.clone(), looks))
        .and(network.admin_routes(engine));
    let service = Service::new(Arc::new(Sessions::new(engine.users.clone())), routes)
        .servers(Arc::new(network.auth(boot)));
    let engine = engine.clone();
    Ok(service.on_stop(move || async move {
        if let Some(bulk) = bulk {
            bulk.stop().await;
        }
        inbox.iter().for_each(Inbox::stop);
        network.stop().await;
        engine.stop().await;
    }))
}

fn profiles(boot: &Boot, engine: &Engine, view: &View, network: &Network) -> ProfileContext {
    ProfileContext {
        users: engine.users.clone(),
        server_name: boot.config.server.name.clone(),
        remote: network.client.clone(),
        lookup: boot.config.users.profile_lookup,
        view: view.clone(),
        presence: engine.presence.clone(),
    }
}

fn aliases(boot: &Boot, engine: &Engine, view: &View, network: &Network) -> AliasContext {
    AliasContext {
        directory: engine.directory.clone(),
        rooms: engine.rooms.clone(),
        view: view.clone(),
        server_name: boot.config.server.name.clone(),
        remote: network.client.clone(),
    }
}

/// What clients ask before they know anything else.
fn discovery_routes(boot: &Boot) -> Routes {
    let config = &boot.config;
    discovery::routes(Arc::new(DiscoveryContext {
        delays_events: !config.rooms.max_event_delay.is_zero(),
        public_url: config.server.public_url.clone(),
        support: config.support.clone(),
        policy_server_key: config.rooms.policy_server_key.clone(),
    }))
    .and(third_party::routes())
    .and(voip::routes(Arc::new(VoipContext {
        turn: config.turn.clone(),
        clock: boot.env.clock.clone(),
    })))
}

/// What makes accounts.
fn accounts(boot: &Boot, engine: &Engine) -> Result<Arc<Accounts>, StartError> {
    let (config, env) = (&boot.config, boot.env.clone());
    let passwords = Passwords::new(config.server.test_mode, config.threads.http, env.clone())
        .map_err(|error| StartError::Part(error.to_string()))?;
    Ok(Arc::new(Accounts {
        users: engine.users.clone(),
        passwords,
        server_name: config.server.name.clone(),
        env,
        lifetimes: config.sessions,
    }))
}

/// Accounts, logins and users' own data.
fn account_routes(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    network: &Network,
    accounts: &Arc<Accounts>,
) -> Routes {
    let users = engine.users.clone();
    let store = engine.store.clone();
    let default_room_version = boot.config.rooms.default_version.clone();
    let capabilities = CapabilitiesContext { accounts: accounts.clone(), default_room_version };
    session_routes(boot, engine, view, network, accounts.clone())
        .and(account::routes())
        .and(account_data::routes(Arc::new(AccountDataContext {
            users: users.clone(),
            store,
            presence: engine.presence.clone(),
        })))
        .and(filters::routes(Arc::new(FilterContext { users })))
        .and(capabilities::routes(Arc::new(capabilities)))
}

/// What users know of each other, and how they keep their rooms in order.
fn people_routes(boot: &Boot, engine: &Engine, view: &View) -> Routes {
    let (config, users, view) = (&boot.config, engine.users.clone(), view.clone());
    let presence = PresenceContext { presence: engine.presence.clone(), view: view.clone() };
    let of_all = config.users.directory_of_all;
    let directory = UserDirectoryContext { view: view.clone(), of_all };
    presence::routes(Arc::new(presence))
        .and(user_directory::routes(Arc::new(directory)))
        .and(tags::routes(Arc::new(TagContext { users, view })))
}

/// Coming in, and what has to be confirmed by who is in.
fn session_routes(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    network: &Network,
    accounts: Arc<Accounts>,
) -> Routes {
    let (config, env) = (&boot.config.registration, &boot.env);
    let registration_tokens =
        Arc::new(RegistrationTokens::new(&config.mode, engine.stored_tokens.clone()));
    let stages = Stages {
        accounts: accounts.clone(),
        tokens: registration_tokens.clone(),
        policies: config.terms.clone(),
    };
    let uiaa = Arc::new(Uiaa::new(env.clone(), stages));
    let tokens = Arc::new(LoginTokens::new(env.clone()));
    let register = RegisterContext {
        accounts: accounts.clone(),
        uiaa: uiaa.clone(),
        mode: config.mode.clone(),
        tokens: registration_tokens,
        has_terms: !config.terms.is_empty(),
        guests: config.guests,
    };
    let login = LoginContext {
        accounts: accounts.clone(),
        tokens: tokens.clone(),
        public_url: boot.config.server.public_url.clone(),
    };
    let login_tokens = LoginTokenContext { accounts: accounts.clone(), uiaa: uiaa.clone(), tokens };
    let password = PasswordContext { accounts: accounts.clone(), uiaa: uiaa.clone() };
    let deactivate = DeactivateContext { accounts: accounts.clone(), uiaa: uiaa.clone() };
    let devices = DeviceContext { accounts: accounts.clone(), uiaa: uiaa.clone() };
    let cross_signing = CrossSigningContext {
        users: accounts.users.clone(),
        remote: network.user_keys.clone(),
        view: view.clone(),
        uiaa: uiaa.clone(),
    };
    register::routes(Arc::new(register))
        .and(uiaa::fallback::routes(uiaa))
        .and(login::routes(Arc::new(login)))
        .and(login_tokens::routes(Arc::new(login_tokens)))
        .and(refresh::routes(accounts))
        .and(third_party_ids::routes())
        .and(password::routes(Arc::new(password)))
        .and(deactivate::routes(Arc::new(deactivate)))
        .and(devices::routes(Arc::new(devices)))
        .and(cross_signing::routes(Arc::new(cross_signing)))
}

/// Reading rooms.
fn reading_routes(engine: &Engine, view: &View, history: Option<History>) -> Routes {
    let past = Past { view: view.clone(), history };
    let initial_sync = InitialSyncContext {
        view: view.clone(),
        directory: engine.directory.clone(),
        users: engine.users.clone(),
    };
    event::routes(past.clone())
        .and(state::routes(view.clone()))
        .and(members::routes(view.clone()))
        .and(messages::routes(past.clone()))
        .and(context::routes(past.clone()))
        .and(relations::routes(view.clone()))
        .and(threads::routes(view.clone()))
        .and(timestamp::routes(past))
        .and(initial_sync::routes(Arc::new(initial_sync)))
}

/// What users want to be notified of.
fn notice_routes(engine: &Engine, view: &View, counts: &UnreadCounts) -> Routes {
    let threads = ThreadContext { users: engine.users.clone(), view: view.clone() };
    let notices = NotificationContext {
        view: view.clone(),
        counts: counts.clone(),
        changes: engine.changes.clone(),
    };
    push_rules::routes(engine.users.clone())
        .and(notifications::routes(Arc::new(notices)))
        .and(thread_subscriptions::routes(Arc::new(threads)))
}

/// Full text search, and who keeps its index.
fn search_routes(boot: &Boot, engine: &Engine, view: &View) -> Result<Routes, StartError> {
    let dir = match &boot.config.server.data {
        DataDir::Memory => None,
        DataDir::Path(dir) => Some(dir.join("search")),
    };
    let index = TextIndex::open(dir, boot.config.memory.search, engine.store.applied())
        .map_err(|error| StartError::Part(error.to_string()))?;
    let changes = engine.changes.clone();
    let follower = Follower::new(view.clone(), Arc::new(index), changes.clone());
    actix_web::rt::spawn(follower.clone().run(boot.shutdown.clone()));
    Ok(search::routes(Arc::new(SearchContext { view: view.clone(), follower, changes })))
}

/// Writing to rooms.
fn writing_routes(
    boot: &Boot,
    engine: &Engine,
    members: Members,
    aliases: Arc<AliasContext>,
) -> Routes {
    let (rooms, users) = (engine.rooms.clone(), engine.users.clone());
    let (directory, view) = (engine.directory.clone(), members.view.clone());
    let creating = CreateRoomContext {
        members: members.clone(),
        directory: directory.clone(),
        default_version: boot.config.rooms.default_version.clone(),
    };
    let upgrading = UpgradeContext::new(members.clone(), directory.clone());
    let delayed = DelayedContext {
        delayed: engine.delayed.clone(),
        view: view.clone(),
        max_delay: boot.config.rooms.max_event_delay,
    };
    let state = StateWriteContext {
        members: members.clone(),
        aliases: aliases.clone(),
        delayed: delayed.clone(),
    };
    let presence = engine.presence.clone();
    let sending = Arc::new(SendContext {
        rooms,
        view: view.clone(),
        delayed: delayed.clone(),
        presence: presence.clone(),
    });
    let typing = engine.typing.clone();
    let typing = TypingContext { typing, view: view.clone(), presence: presence.clone() };
    let receipts = ReceiptContext { users, view, presence };
    create_room::routes(Arc::new(creating))
        .and(upgrade::routes(Arc::new(upgrading)))
        .and(memberships::routes(Arc::new(MembershipContext { members, aliases })))
        .and(send::routes(sending.clone()))
        .and(redact::routes(sending))
        .and(state_write::routes(Arc::new(state)))
        .and(delayed::routes(delayed))
        .and(typing::routes(Arc::new(typing)))
        .and(receipts::routes(Arc::new(receipts)))
}

/// The version of new rooms.
fn default_version(config: &Config) -> Result<&'static RoomVersion, StartError> {
    let version = &config.rooms.default_version;
    let unknown = || StartError::Part(format!("room version {version} is not known"));
    RoomVersion::get(version).ok_or_else(unknown)
}

/// Opens storage and starts the actors.
async fn start_engine(boot: &Boot, faults: Option<&Faults>) -> Result<Engine, StartError> {
    let (config, clock) = (&boot.config, boot.env.clock.clone());
    let storage = match &config.server.data {
        DataDir::Memory => None,
        DataDir::Path(dir) => Some(StoreOptions {
            cache_bytes: config.memory.index_cache,
            clock: Some(Arc::new(move || clock.monotonic())),
            files: testing::files(faults),
            ..StoreOptions::new(dir)
        }),
    };
    let options = EngineOptions {
        server_name: config.server.name.clone(),
        storage,
        state_cache_bytes: config.memory.state_cache,
        rooms: RoomLimits {
            threads: config.threads.rooms,
            // Half of the threads that rooms run on: resolving must not crowd out the talk.
            resolvers: config.threads.rooms.div_ceil(2),
            queue_per_room: config.rooms.max_queue,
            idle: config.rooms.idle_timeout,
            memory: boot.budget.rooms.clone(),
            ..RoomLimits::default()
        },
        presence: config.presence.enabled.then_some(PresenceOptions {
            idle: config.presence.idle,
            grace: config.presence.grace,
        }),
        room_version: default_version(config)?,
        env: boot.env.clone(),
        metrics: Arc::new(boot.metrics.clone()),
    };
    Engine::start(options).await.map_err(|error| StartError::Part(error.to_string()))
}
